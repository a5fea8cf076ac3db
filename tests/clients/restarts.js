// Pages that live through restarts of the broker, in the browser that CHROMIUM names: `node restarts.js VERSION COUNT
// NAME=ORIGIN…` opens COUNT pages at each origin, each with an EventSource, and prints what becomes of them, a JSON object a
// line with the page's name, until standard input ends. VERSION is 1.1 or 2: over HTTP/1.1 each page is in a browser context
// of its own, since a context holds six connections to a host; over HTTP/2 all pages share one, and so one connection.

const { chromium } = require('playwright-core');

const [version, count, ...fronts] = process.argv.slice(2);
const args = ['--no-proxy-server', '--disable-quic', '--disable-background-networking', '--disable-component-update'];
if (version === '1.1') args.push('--disable-http2');

// In a page: keeps a record of all that it is told, and reports the turning points, and the record with the last event.
const listen = async (url) => {
  const record = [];
  let epoch = '';
  const source = new EventSource(url);
  const on = (type, act) => source.addEventListener(type, (event) => act(JSON.parse(event.data).data, event.lastEventId));
  const tell = (type, id, data) => report({ id, type, data });
  const tellAll = (type) => tell(type, '', JSON.stringify({ state: source.readyState, record }));
  on('tick', ({ n }, id) => {
    record.push({ tick: { id, n } });
    if (id.split('-')[0] !== epoch) {
      epoch = id.split('-')[0];
      tell('epoch', id, epoch);
    }
  });
  on('gap', (gap) => record.push({ gap }));
  on('refused', ({ code }) => tell('refused', '', code));
  on('last', () => tellAll('last'));
  source.onerror = () => source.readyState === EventSource.CLOSED && tellAll('closed');
  const begun = new Promise((resolve) => source.addEventListener('connected', resolve, { once: true }));
  await begun;
  // A stream has no entry before its end: another request shows what is spoken here.
  await fetch('/health');
  tell('begun', '', performance.getEntriesByName(new URL('/health', location).href)[0].nextHopProtocol);
};

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  process.stdin.resume().on('end', () => browser.close().finally(() => process.exit()));
  const newContext = () => browser.newContext({ ignoreHTTPSErrors: true });
  const shared = version === '2' && (await newContext());
  for (const [name, origin] of fronts.map((front) => front.split('='))) {
    for (let i = 1; i <= count; i++) {
      const page = await (shared || (await newContext())).newPage();
      await page.exposeFunction('report', (event) => console.log(JSON.stringify({ page: `${name} ${i}`, ...event })));
      page.on('console', (message) => console.error(`${name} ${i}: ${message.text()}`));
      await page.route(`${origin}/page.html`, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html>' }));
      await page.goto(`${origin}/page.html`);
      await page.unrouteAll();
      await page.evaluate(listen, '/api/v1/events?topics=clock');
    }
  }
})();
