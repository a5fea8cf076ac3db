// What the Node clients share: `node CLIENT.js URL TYPE…` listens at URL and prints what the library reports of
// these types, a JSON object a line, until standard input ends.

exports.url = process.argv[2];
exports.types = process.argv.slice(3);

exports.report = ({ id, type, data }) => console.log(JSON.stringify({ id, type, data }));

// For everything that has the interface of WHATWG's EventSource.
exports.listen = (source) => {
  for (const type of exports.types) {
    source.addEventListener(type, (event) => exports.report({ id: event.lastEventId, type, data: event.data }));
  }
};

exports.atEnd = (leave) => process.stdin.resume().on('end', leave);
