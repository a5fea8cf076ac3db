// npm `@microsoft/fetch-event-source`: reports everything to one callback; it reconnects by itself, with the header
// Last-Event-ID, where a stream fails, and where `onclose` throws.

// It is written for pages, and asks whether its page can be seen.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { fetchEventSource } = require('@microsoft/fetch-event-source');
const { url, report, atEnd } = require('./report.js');

fetchEventSource(url, {
  onmessage: ({ id, event, data }) => report({ id, type: event || 'message', data }),
  onclose: () => {
    throw new Error('the stream has ended');
  },
});
atEnd(() => process.exit());
