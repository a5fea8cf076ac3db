// npm `event-source-polyfill`: it reconnects by itself, with the query parameter lastEventId and without the header.

const { EventSourcePolyfill } = require('event-source-polyfill');
const { url, listen, atEnd } = require('./report.js');

listen(new EventSourcePolyfill(url));
atEnd(() => process.exit());
