// Two users' pages, and two from origins that are not let in, in the browser that CHROMIUM names: `node users.js BROKER
// APP NEIGHBOUR STRANGER COOKIE_TOKEN URL_TOKEN`, the first four of which are origins, prints what each page sees, a JSON
// object a line with the page's name, until standard input ends.

const { chromium } = require('playwright-core');

const [broker, app, neighbour, stranger, cookieToken, urlToken] = process.argv.slice(2);
const events = `${broker}/api/v1/events`;
const broadcast = `${broker}/api/v1/events/broadcast`;
const args = ['--no-proxy-server', '--disable-quic', '--disable-background-networking', '--disable-component-update'];

// In a page: listens, and reports every event of these types, and whether it was refused.
const listen = ([url, withCredentials]) => {
  const source = new EventSource(url, { withCredentials });
  for (const type of ['connected', 'gap', 'wallet', 'notice', 'forged']) {
    source.addEventListener(type, (event) => report({ id: event.lastEventId, type, data: event.data }));
  }
  source.onerror = () => source.readyState === EventSource.CLOSED && report({ id: '', type: 'refused', data: '' });
};

// In a page: tries everything that a page can send by itself, and reports what it could read of the answers.
const intrude = async ([events, broadcast]) => {
  const read = async (what, url, options) => {
    try {
      const answer = await fetch(url, options);
      return `${what}: ${answer.type} ${answer.status}`;
    } catch {
      return `${what}: unreadable`;
    }
  };
  const event = JSON.stringify({ topic: 'wallets', type: 'forged', data: {} });
  const json = { 'Content-Type': 'application/json' };
  const query = `${broadcast}?topic=wallets&type=forged`;
  const tried = [
    await read('stats', `${events}/stats`),
    await read('stream', `${events}?limit=1&last=1`, { credentials: 'include' }),
    await read('json', broadcast, { method: 'POST', credentials: 'include', headers: json, body: event }),
    await read('key', broadcast, { method: 'POST', headers: { ...json, 'X-API-Key': 'a guess' }, body: event }),
    await read('simple', query, { method: 'POST', credentials: 'include' }),
    await read('blind', query, { method: 'POST', credentials: 'include', mode: 'no-cors' }),
  ];
  navigator.sendBeacon(query, 'x');
  const frame = Object.assign(document.createElement('iframe'), { name: 'target' });
  document.body.appendChild(frame);
  const form = Object.assign(document.createElement('form'), { action: query, method: 'post', target: 'target' });
  const answered = new Promise((resolve) => frame.addEventListener('load', resolve));
  document.body.appendChild(form).submit();
  await answered;
  report({ id: '', type: 'intruded', data: tried.join('\n') });
};

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  process.stdin.resume().on('end', () => browser.close().finally(() => process.exit()));

  // Each in a context, with cookies of its own.
  const open = async (name, origin, cookie) => {
    const context = await browser.newContext();
    if (cookie) {
      await context.addCookies([{ name: 'session', value: cookie, url: broker, httpOnly: true, sameSite: 'Lax' }]);
    }
    const page = await context.newPage();
    await page.exposeFunction('report', (event) => console.log(JSON.stringify({ page: name, ...event })));
    page.on('console', (message) => console.error(`${name}: ${message.text()}`));
    await page.goto(`${origin}/`);
    return page;
  };
  const ann = await open('ann', app, cookieToken);
  const bob = await open('bob', app);
  await ann.evaluate(listen, [`${events}?topics=wallets`, true]);
  await bob.evaluate(listen, [`${events}?topics=wallets&access_token=${urlToken}`, false]);
  // With the first user's cookies, as it would be in the user's own browser.
  for (const [name, origin] of Object.entries({ neighbour, stranger })) {
    const intruder = await open(name, origin, cookieToken);
    await intruder.evaluate(listen, [`${events}?topics=wallets`, true]);
    await intruder.evaluate(intrude, [events, broadcast]);
  }
})();
