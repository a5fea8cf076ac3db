// The page's reader of streams against one that nobody here wrote (eventsource-parser): random texts, torn at random,
// have to become the same events. Prints `passed`.

const assert = require('node:assert/strict');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { createParser } = require('eventsource-parser');

const source = readFileSync(join(__dirname, '../../src/http/page/source.js'), 'utf8');
const Frames = new Function(`'use strict'; ${source}; return Frames;`)();

// Random numbers from a fixed seed (mulberry32), the same in every run.
let state = 0x5eed;
const below = (n) => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
};
const of = (list) => list[below(list.length)];
const times = (n, make) => Array.from({ length: n }, make);

const fields = ['data: a', 'data:b', 'data', 'data:', 'data:  é', 'event: x', 'event:', 'id: 1', 'id', 'id: \0',
  'retry: 5', 'retry: x', ': comment', ':', 'other: y', ' data: c', 'data: d: e'];
const ends = ['\n', '\n', '\r', '\r\n'];
const text = () => times(1 + below(12), () => (below(3) === 0 ? '' : of(fields)) + of(ends)).join('') + of(['', 'data: torn', '\n\n']);

// Cuts a text into pieces, some of them empty.
const torn = (whole) => {
  const cuts = times(below(6), () => below(whole.length + 1)).sort((a, b) => a - b);
  return [0, ...cuts].map((cut, n) => whole.slice(cut, cuts[n] ?? whole.length));
};

for (let n = 0; n < 20_000; n += 1) {
  const whole = text();
  const pieces = torn(whole);
  const [theirs, ours] = [[], []];
  const parser = createParser({
    onEvent: ({ id, event, data }) => theirs.push({ id: id ?? null, type: event ?? 'message', data }),
  });
  const frames = new Frames(({ raw, hasData, id, type, data }) => {
    assert.ok(whole.includes(raw), 'a frame is shown as it came');
    if (hasData) {
      ours.push({ id, type, data });
    }
  });
  for (const piece of pieces) {
    parser.feed(piece);
    frames.push(piece);
  }
  // A return at the very end may be half of a line's end: it is known by what follows.
  parser.feed(':\n');
  frames.push(':\n');
  assert.deepEqual(ours, theirs, JSON.stringify(pieces));
}

// What has no end is not gathered for ever.
const endless = new Frames(() => {});
assert.throws(() => times(20, () => endless.push('x'.repeat(1 << 20))), /does not end/);
console.log('passed');
