// Pages that live through restarts of the broker, in the browser that CHROMIUM names: `node restarts.js VERSION COUNT
// NAME=ORIGIN…` opens COUNT pages at each origin, each with an EventSource, and prints what becomes of them, a JSON object a
// line with the page's name, until standard input ends. VERSION is 1.1 or 2. Over HTTP/2 all pages of an origin share one
// connection; over HTTP/1.1 a browser context holds six to a host, so five pages share a context.

const { chromium } = require('playwright-core');

const [version, number, ...fronts] = process.argv.slice(2);
const count = Number(number);
const args = ['--no-proxy-server', '--disable-quic', '--disable-background-networking', '--disable-component-update'];
// A process for each page would be too much for a small machine.
args.push('--renderer-process-limit=4');
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
  await new Promise((resolve) => source.addEventListener('connected', resolve, { once: true }));
  // A stream has no entry before its end: another request shows what is spoken here.
  const spoken = new Promise((resolve) => {
    const find = (list) => list.getEntries().filter(({ name }) => name.endsWith('/health')).forEach(resolve);
    new PerformanceObserver(find).observe({ type: 'resource' });
  });
  await (await fetch('/health')).text();
  tell('begun', '', (await spoken).nextHopProtocol);
};

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  process.stdin.resume().on('end', () => browser.close().finally(() => process.exit()));
  const perContext = version === '1.1' ? 5 : count;
  const open = async (context, name, origin) => {
    const page = await context.newPage();
    await page.exposeFunction('report', (event) => console.log(JSON.stringify({ page: name, ...event })));
    page.on('console', (message) => console.error(`${name}: ${message.text()}`));
    await page.route(`${origin}/page.html`, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html>' }));
    await page.goto(`${origin}/page.html`);
    await page.unrouteAll();
    await page.evaluate(listen, '/api/v1/events?topics=clock');
  };
  for (let first = 1; first <= count; first += perContext) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    for (let i = first; i < first + perContext; i++) {
      await Promise.all(fronts.map((front) => front.split('=')).map(([name, origin]) => open(context, `${name} ${i}`, origin)));
    }
  }
})();
