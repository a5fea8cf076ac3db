// The page at `/` in Chromium: `node page.js SCENE URL` plays one scene with it and prints `passed`. What a scene needs
// to be done elsewhere it asks for in a line, and waits for one. With SHOTS=FOLDER it leaves pictures there.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { join } = require('node:path');
const { createInterface } = require('node:readline');
const axe = require('axe-core');
const { chromium } = require('playwright-core');

const [scene, url] = process.argv.slice(2);
const origin = new URL(url).origin;
const PATIENCE = 30_000;

// A scene that gets nowhere ends.
setTimeout(() => {
  console.error(`${scene}: it took too long`);
  process.exit(1);
}, 150_000).unref();

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const ask = async (line) => {
  console.log(line);
  await answers.next();
};

// Waits until `look` gives something.
const until = async (what, look) => {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) {
      return found;
    }
    assert.ok(Date.now() < deadline, `waited for ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
};

// ---- the broker, asked without the page

const post = async (body, type = 'application/json', headers = {}) => {
  const target = `${origin}/api/v1/events/broadcast`;
  const answer = await fetch(target, { method: 'POST', headers: { 'Content-Type': type, ...headers }, body });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
};
const publish = (topic, type, data = {}) => post(JSON.stringify({ topic, type, data }));
const stats = async () => (await fetch(`${origin}/api/v1/events/stats`)).json();

// The frames of a stream that ends after so many events.
const frames = async (query, headers = {}) => {
  const text = await (await fetch(`${origin}/api/v1/events?${query}`, { headers })).text();
  return text.split('\n\n').filter((frame) => frame !== '' && !frame.startsWith('event: connected'));
};

// ---- the browser

// The browser keeps to the loopback interface: it looks for no proxy, and nothing in it calls home.
const args = ['--no-proxy-server', '--disable-quic', '--disable-background-networking', '--disable-component-update'];
let browser;

// A page in which nothing may go wrong but what `expected` names.
const open = async (options = {}, expected = /^$/) => {
  const viewport = { width: 1440, height: 900 };
  // The certificate of a test is signed by itself.
  const context = await browser.newContext({ viewport, ignoreHTTPSErrors: url.startsWith('https:'), ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.wrong = [];
  page.sent = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !expected.test(message.text())) {
      page.wrong.push(message.text());
    }
  });
  page.on('pageerror', (error) => page.wrong.push(error.stack));
  page.on('request', (request) => {
    page.sent.push(request);
    if (new URL(request.url()).origin !== origin && !request.url().startsWith('data:')) {
      page.wrong.push(`it asks for ${request.url()}`);
    }
  });
  await page.exposeFunction('reportViolation', (what) => page.wrong.push(`against its policy: ${what}`));
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => {
    window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`);
  }));
  await page.goto(url);
  return page;
};

const close = async (page) => {
  assert.deepEqual(page.wrong, []);
  await page.context().close();
};

const text = (page, selector) => page.locator(selector).first().textContent();
const says = (page, selector, what) => until(`${selector} to say ${what}`, async () => {
  const found = await text(page, selector);
  return what instanceof RegExp ? what.test(found) : found.includes(what);
});
const live = async (page) => {
  await says(page, '#connection', /^Live$/);
  await page.waitForSelector('#overview:not([aria-busy])');
};
const rows = (page) => page.locator('#events-body tr.event:visible');
const figure = (page, card) => page.locator(`.card:has(h3:text-is("${card}")) .figure b`).first().textContent();

const listen = async (page, topics, from = '') => {
  await page.fill('#listen [name=topics]', topics);
  await page.selectOption('#listen [name=from]', from);
  await page.click('#listen-button');
  await says(page, '#live-state', 'Listening.');
};

const fillForm = async (page, topic, type, data) => {
  await page.fill('#publish-form [name=topic]', topic);
  await page.fill('#publish-form [name=type]', type);
  await page.fill('#publish-form [name=data]', data);
};

const picture = async (page, name) => {
  if (process.env.SHOTS) {
    await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) });
  }
};

// ---- the scenes

const scenes = {
  async newcomer() {
    const page = await open({}, /status of 400/);
    await live(page);
    const told = await stats();
    assert.equal(await text(page, '#version'), told.version);
    assert.equal(await page.locator('.card').count(), 6);
    assert.equal(await figure(page, 'Streams'), '0');
    assert.equal(await figure(page, 'Publish latency'), '–', 'what was not told is not drawn');
    await says(page, '#topics-none', 'Nothing has been published yet');

    // What is no JSON is not sent; what the server does not take is told in its words.
    await fillForm(page, 'wallets', 'wallet.created', '{"n":');
    await page.click('#publish-button');
    await says(page, '#data-why', 'Not JSON');
    assert.equal((await stats()).events, 0);
    await page.fill('#publish-form [name=data]', '[1]');
    await page.click('#publish-button');
    await says(page, '#publish-answer', 'The server says 400 bad_request: ');

    // Another client listens; the data arrive there, and in the page, as they were typed.
    const data = '{"n":9007199254740993,"f":1.0,"timestamp":"t"}';
    const elsewhere = frames('topics=wallets&limit=1');
    await until('the other client', async () => (await stats()).connected_clients === 1);
    await page.fill('#publish-form [name=data]', data);
    await page.click('#publish-button');
    await says(page, '#publish-answer', /^Published as \S+-1; streams connected: 1\.$/);
    const [frame] = await elsewhere;
    assert.ok(frame.includes(`"data":${data},`), frame);
    await page.click('#watch');
    await until('the event', async () => await rows(page).count() === 1);
    assert.equal(await text(page, '#events-body .topic'), 'wallets');
    assert.equal(await text(page, '#events-body .data'), data);
    await rows(page).first().click();
    assert.equal(await text(page, '#frame-text'), `${frame}\n`);
    await page.click('#frame-close');

    // All figures are the server's.
    await until('a stream', async () => await figure(page, 'Streams') === '1');
    await until('a rate', async () => parseFloat(await figure(page, 'Events in')) > 0);
    await until('a latency', async () => /^[0-9.]+\u202fms$/.test(await figure(page, 'Publish latency')));
    await says(page, '#topics-body tr', 'wallets');
    const [topic] = (await stats()).topics;
    await until('the same of the topic', async () => {
      const [, events, , kept, listeners] = (await page.locator('#topics-body td').allTextContents()).map(Number);
      return events === topic.events_published && kept === topic.events && listeners === topic.listeners;
    });
    await says(page, '#counters', 'bad_request1');

    // Paused, nothing moves, and nothing is lost.
    await page.click('#pause');
    await publish('wallets', 'wallet.frozen');
    await publish('wallets', 'wallet.closed');
    await says(page, '#live-counts', '3 received · 2 held back');
    assert.equal(await rows(page).count(), 1);
    await page.click('#pause');
    await until('what was held back', async () => await rows(page).count() === 3);

    // A filter hides what does not match, and counts what comes and does not.
    await page.fill('#filter', 'Closed');
    assert.equal(await rows(page).count(), 1);
    await publish('wallets', 'wallet.created');
    await publish('wallets', 'wallet.closed');
    await says(page, '#live-counts', '5 received · 1 not matching');
    await until('the one that matches', async () => await rows(page).count() === 2);
    await page.fill('#filter', '');
    assert.equal(await rows(page).count(), 4);
    await page.click('#clear');
    assert.equal(await rows(page).count(), 0);

    // Types are for the server to choose; a topic is opened by its name in the table.
    await page.click('#listen-button');
    await page.fill('#listen [name=types]', 'wallet.frozen');
    await page.click('#listen-button');
    await until('the one of that type', async () => await rows(page).count() === 1);
    await page.click('#topics-body button');
    await until('all that is kept', async () => await rows(page).count() === 5);
    await close(page);
  },

  async flood() {
    const page = await open();
    await live(page);
    await listen(page, 'flood');
    const batch = (n) => Array.from({ length: n }, (_, i) => JSON.stringify({ topic: 'flood', data: { i } })).join('\n');
    await page.click('#pause');
    await post(batch(1000), 'application/x-ndjson');
    await says(page, '#live-counts', '1,000 received · 700 skipped: more came than is shown · 300 held back');
    await page.click('#pause');
    await until('the last 300', async () => await rows(page).count() === 300);
    assert.match(await text(page, '#events-body .data'), /^\{"i":999,/);
    for (let n = 0; n < 20; n += 1) {
      await post(batch(2000), 'application/x-ndjson');
    }
    await says(page, '#live-counts', /^41,000 received · [0-9,]+ skipped/);
    assert.equal(await rows(page).count(), 300, 'it does not grow');
    if (url.startsWith('https:')) {
      const protocol = () => performance.getEntriesByType('navigation')[0].nextHopProtocol;
      assert.equal(await page.evaluate(protocol), 'h2');
    }
    await close(page);
  },

  async hostile() {
    const image = '<img src=x onerror=pwned()>';
    const script = '</script><script>pwned()</script>';
    await publish(image, script, { [image]: script });
    await publish(`';$(touch pwned)`, 'javascript:pwned()', { a: '\u202e\u0000"' });
    const page = await open();
    await page.exposeFunction('pwned', () => page.wrong.push('it ran'));
    await live(page);
    await listen(page, 'all', 'last=20');
    await until('both', async () => await rows(page).count() === 2);
    await until('the topics', async () => await page.locator('#topics-body tr').count() === 2);
    assert.equal(await text(page, '#events-body tr:last-child .topic'), image);
    assert.equal(await text(page, '#events-body tr:last-child .type'), script);
    for (const row of await rows(page).all()) {
      await row.click();
    }
    assert.ok((await text(page, '#frame-text')).startsWith(`event: ${script}\n`));
    await page.locator('#topics-body button', { hasText: image }).click();
    await until('the one', async () => await rows(page).count() === 1);
    assert.equal(await page.inputValue('#listen [name=topics]'), image);
    await fillForm(page, image, script, '{}');
    await page.click('#publish-button');
    await says(page, '#publish-answer', 'Published as');
    assert.equal(await page.locator('img, main script, iframe').count(), 0);

    // Lines to copy hold whatever was typed, and a shell takes it for text.
    for (const topic of [`a'; touch pwned; echo '`, '$(touch pwned)`touch pwned`', `"'\\''"!&|`]) {
      await fillForm(page, topic, topic, `{"a":"it's"}`);
      const words = async (id) => {
        const line = await text(page, id);
        const spoken = execFileSync('bash', ['-c', `curl() { printf '%s\\0' "$@"; }; ${line}`], { encoding: 'utf8' });
        return spoken.split('\0');
      };
      const [, listened] = await words('#snippet-listen');
      assert.equal(new URL(listened).searchParams.get('topics'), topic);
      const published = (await words('#snippet-publish'))[3];
      assert.deepEqual(JSON.parse(published), { topic, type: topic, data: { a: `it's` } });
      const source = await text(page, '#snippet-page');
      let opened;
      class EventSource {
        constructor(address) {
          opened = new URL(address).searchParams.get('topics');
        }

        addEventListener(type) {
          assert.equal(type, topic);
        }
      }
      new Function('EventSource', source)(EventSource);
      assert.equal(opened, topic);
    }
    await close(page);
  },

  async keyboard() {
    const page = await open();
    await live(page);
    const focused = () => page.evaluate(() => {
      const { activeElement: node } = document;
      const { outlineStyle, outlineWidth } = getComputedStyle(node);
      return { id: node.id, name: node.name ?? '', text: node.textContent, seen: outlineStyle !== 'none' && outlineWidth !== '0px' };
    });
    // Goes on until it is there; wherever it stops on the way, one sees it.
    const tabTo = async (what, is) => {
      for (let n = 0; n < 80; n += 1) {
        await page.keyboard.press('Tab');
        const now = await focused();
        assert.ok(now.seen, `the focus is not seen on ${JSON.stringify(now)}`);
        if (is(now)) {
          return;
        }
      }
      assert.fail(`no way leads to ${what}`);
    };
    await page.keyboard.press('Tab');
    assert.equal((await focused()).text, 'Skip to the content');
    await page.keyboard.press('Enter');
    assert.equal((await focused()).id, 'main');

    // A chart is read by its arrows.
    await tabTo('a chart', ({ text }) => text.includes('now'));
    await page.keyboard.press('ArrowLeft');
    await says(page, '.card .reading', /^\d\d:\d\d:\d\d {2}connected 0$/);

    await tabTo('the form', ({ id, name }) => id === '' && name === 'topic');
    await page.keyboard.type('keys');
    await page.keyboard.press('Tab');
    await page.keyboard.type('pressed');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Control+Enter');
    await says(page, '#publish-answer', 'Published as');
    await publish('keys', 'again');
    await tabTo('the button to watch', ({ id }) => id === 'watch');
    await page.keyboard.press('Enter');
    await until('both events', async () => await rows(page).count() === 2);
    assert.equal((await focused()).id, 'events');
    await page.keyboard.press('Tab');
    assert.equal((await focused()).text, 'again');
    await page.keyboard.press('ArrowDown');
    assert.equal((await focused()).text, 'pressed');
    await page.keyboard.press('Enter');
    await says(page, '#frame-text', 'event: pressed\n');
    await tabTo('the way out', ({ id }) => id === 'frame-close');
    await page.keyboard.press('Enter');
    assert.equal((await focused()).text, 'pressed', 'it is where it was');

    // The dialog keeps the focus, and gives it back.
    await page.focus('#access');
    await page.keyboard.press('Enter');
    assert.equal((await focused()).name, 'key');
    await page.keyboard.press('Escape');
    assert.equal((await focused()).id, 'access');
    await close(page);
  },

  async looks() {
    for (let n = 0; n < 30; n += 1) {
      await publish(n % 3 ? 'transactions' : 'wallets', 'transaction.completed', { amount: n * 1000, currency: 'INR' });
    }
    const grounds = new Set();
    for (const colorScheme of ['light', 'dark']) {
      for (const width of [1440, 768, 360]) {
        const page = await open({ colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' });
        await live(page);
        await page.locator('#topics-body button').first().click();
        await until('events', async () => await rows(page).count() === 20);
        await rows(page).first().click();
        await page.fill('#publish-form [name=data]', '{');
        await page.evaluate(() => scrollTo(0, 0));
        const name = `${colorScheme}-${width}`;
        await picture(page, name);
        const { scroll, ground, smooth } = await page.evaluate(() => ({
          scroll: document.documentElement.scrollWidth,
          ground: getComputedStyle(document.body).backgroundColor,
          smooth: getComputedStyle(document.documentElement).scrollBehavior,
        }));
        assert.ok(scroll <= width, `${name}: it is ${scroll} wide`);
        assert.equal(smooth, 'auto');
        grounds.add(ground);
        // As the debugger, which no policy binds.
        await page.evaluate(`${axe.source}; undefined`);
        for (const open of [false, true]) {
          if (open) {
            await page.click('#access');
          }
          const { violations } = await page.evaluate(() => window.axe.run());
          const told = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
          assert.deepEqual(told.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], name);
        }
        await close(page);
      }
    }
    assert.equal(grounds.size, 2);

    // The button's choice counts more than the system's, and stays.
    const page = await open({ colorScheme: 'dark' });
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await ground();
    await page.click('#theme');
    await says(page, '#theme', 'Theme: light');
    assert.notEqual(await ground(), dark);
    await page.reload();
    await says(page, '#theme', 'Theme: light');
    assert.notEqual(await ground(), dark);
    await close(page);
  },

  async operator() {
    const key = process.env.KEY;
    const page = await open({}, /status of 401/);
    await page.evaluate(`${axe.source}; undefined`);
    assert.deepEqual((await page.evaluate(() => window.axe.run())).violations.map(({ id }) => id).filter((id) =>
      ['color-contrast', 'label', 'button-name', 'document-title', 'html-has-lang'].includes(id)), []);
    await picture(page, 'sign-in');
    await page.fill('#key', 'a wrong one');
    await page.keyboard.press('Enter');
    await says(page, '#why', 'Not signed in: there is no such key.');
    await page.fill('#key', key);
    await page.keyboard.press('Enter');
    await live(page);

    // With the key all may be listened to and published, though others need tokens and keys.
    await listen(page, 'all');
    await fillForm(page, 'wallets', 'wallet.created', '{}');
    await page.click('#publish-button');
    await says(page, '#publish-answer', 'Published as');
    await until('the event', async () => await rows(page).count() === 1);
    assert.ok(await page.locator('#needs-token').isVisible() && await page.locator('#needs-key').isVisible());
    assert.match(await text(page, '#snippet-publish'), /^curl -H "X-API-Key: \$KEY" /);
    assert.match(await text(page, '#snippet-page'), /access_token=" \+ token\);/);

    await page.reload();
    await live(page);
    assert.equal(page.url(), url);
    await page.click('#sign-out');
    await page.waitForSelector('#door');
    assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
    await page.reload();
    await page.waitForSelector('#door');

    // Where the key went: into one header.
    const carried = page.sent.filter((request) => request.headers()['x-api-key'] === key);
    assert.ok(carried.length >= 5, `${carried.length}`);
    for (const request of page.sent) {
      const { 'x-api-key': _, ...headers } = request.headers();
      const rest = decodeURIComponent(JSON.stringify([request.url(), headers, request.postData() ?? '']));
      assert.ok(!rest.includes(key), rest);
    }
    await close(page);
  },

  async refused() {
    const page = await open({}, /status of 40[13]/);
    await live(page);
    await page.click('#listen-button');
    await says(page, '#live-state', 'The server says 401 token_missing: a token or a key is needed');
    assert.equal(await text(page, '#listen-button'), 'Listen');
    await page.click('#publish-button');
    await says(page, '#publish-answer', 'The server says 401 token_missing');
    await page.click('#access');
    await page.fill('#access-form [name=token]', process.env.TOKEN);
    await page.click('#access-form .primary');
    await page.click('#listen-button');
    await says(page, '#live-state', 'Listening.');
    await page.click('#publish-button');
    await says(page, '#publish-answer', 'The server says 403 forbidden');
    await close(page);
  },

  async restart() {
    await publish('wallets', 'wallet.created');
    const page = await open({}, /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET|status of 503/);
    await live(page);
    await listen(page, 'wallets', 'last=20');
    await until('the event', async () => await rows(page).count() === 1);
    await ask('stop the broker');
    await says(page, '#connection', /^Lost; again in /);
    await says(page, '#notice', 'The connection was lost at ');
    await says(page, '#events-body .note', 'The connection was lost.');
    await ask('start the broker');
    await live(page);
    await says(page, '#notice', /^(Connected again|The broker was restarted) at /);
    await says(page, '#events-body .gap', 'the broker has begun a new history');
    await publish('wallets', 'wallet.frozen');
    await until('what comes now', async () => await rows(page).count() === 2);
    await page.locator('#events-body .gap').click();
    await says(page, '#frame-text', 'event: gap\n');
    await close(page);
  },
};

(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  try {
    await scenes[scene]();
    console.log('passed');
  } catch (error) {
    console.error(`${scene}: ${error.stack}`);
    process.exitCode = 1;
  } finally {
    await browser.close();
    process.stdin.destroy();
  }
})();
