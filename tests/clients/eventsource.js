// npm `eventsource`: WHATWG's interface over fetch; it reconnects by itself, with the header Last-Event-ID.

const { EventSource } = require('eventsource');
const { url, listen, atEnd } = require('./report.js');

listen(new EventSource(url));
atEnd(() => process.exit());
