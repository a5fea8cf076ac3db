// Chromium's own EventSource, in a page of the stream's own origin, with the browser that CHROMIUM names.

const { join } = require('node:path');
const { chromium } = require('playwright-core');
const { url, types, report, atEnd } = require('./report.js');

// The browser keeps to the loopback interface: it looks for no proxy, and nothing in it calls home.
const args = ['--no-proxy-server', '--disable-quic', '--disable-background-networking', '--disable-component-update'];

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  atEnd(() => browser.close().finally(() => process.exit()));

  // The certificate of a test is signed by itself.
  const page = await browser.newPage({ ignoreHTTPSErrors: url.startsWith('https:') });
  await page.exposeFunction('report', report);
  const address = new URL('/page.html', url).href;
  await page.route(address, (route) => route.fulfill({ path: join(__dirname, 'page.html') }));
  await page.goto(address);
  // From here on nothing stands between the browser and the network.
  await page.unrouteAll();
  await page.evaluate(([url, types]) => listen(url, types), [url, types]);
})();
