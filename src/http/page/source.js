// ---- streams: a reader of Server-Sent Events that shows the frames as they came, sends a key, and resumes

// A frame that does not end is not waited for for ever.
const FRAME_CHARS_MAX = 16 << 20;

// Interprets a stream as WHATWG HTML, section 9.2.6, says; each frame is given with its text.
class Frames {
  constructor(take) {
    this.take = take;
    this.rest = '';
    this.searched = 0;
    this.clear();
  }

  clear() {
    this.frame = { raw: '', type: 'message', data: [], id: null, retry: null };
  }

  push(text) {
    this.rest += text;
    let from = 0;
    for (;;) {
      const end = this.lineEnd(Math.max(from, this.searched));
      if (end === null) {
        break;
      }
      this.line(this.rest.slice(from, end.at), this.rest.slice(from, end.next));
      from = end.next;
    }
    this.rest = this.rest.slice(from);
    // A return at the very end may be half of a line's end.
    this.searched = Math.max(0, this.rest.length - 1);
    if (this.rest.length + this.frame.raw.length > FRAME_CHARS_MAX) {
      throw new Error('a frame does not end');
    }
  }

  lineEnd(from) {
    const feed = this.rest.indexOf('\n', from);
    const before = feed < 0 ? this.rest.slice(from, -1) : this.rest.slice(from, feed);
    const back = before.indexOf('\r');
    if (back >= 0 && from + back + 1 !== feed) {
      return { at: from + back, next: from + back + 1 };
    }
    if (feed < 0) {
      return null;
    }
    return { at: back >= 0 ? feed - 1 : feed, next: feed + 1 };
  }

  line(text, raw) {
    if (text === '') {
      return this.dispatch();
    }
    const { frame } = this;
    frame.raw += raw;
    const colon = text.indexOf(':');
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + (text[colon + 1] === ' ' ? 2 : 1));
    if (field === 'event') {
      frame.type = value === '' ? 'message' : value;
    } else if (field === 'data') {
      frame.data.push(value);
    } else if (field === 'id' && !value.includes('\0')) {
      frame.id = value;
    } else if (field === 'retry' && /^[0-9]+$/.test(value)) {
      frame.retry = Number(value);
    }
  }

  dispatch() {
    const { frame } = this;
    this.clear();
    if (frame.raw !== '') {
      this.take({ ...frame, data: frame.data.join('\n'), hasData: frame.data.length > 0 });
    }
  }
}

// The browser's own waits, bounded and never quite together: a thousand pages must not come back at once.
const RETRY_MS = 3000;
const RETRY_MS_MAX = 30000;
// Whatever a server or a proxy says: it is not asked without a pause, and a timer takes no more than 31 bits.
const RETRY_MS_MIN = 100;
const LATER_S_MAX = 3600;

// A stream that is opened again whenever it ends, from where it was. `take` is given its frames, `tell` its state:
// `connecting`, `open`, `waiting` (why, if the server said it, and how long), `refused` (why): that is the end.
class Source {
  constructor(url, { headers, take, tell }) {
    Object.assign(this, { url, headers, take, tell });
    this.lastId = '';
    this.retry = RETRY_MS;
    this.failures = 0;
    this.stopped = true;
  }

  start() {
    if (this.stopped) {
      this.stopped = false;
      this.run(this.abort = new AbortController());
    }
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
  }

  async run({ signal }) {
    this.failures = 0;
    while (!signal.aborted) {
      this.tell('connecting');
      let later = {};
      try {
        later = await this.once(signal);
      } catch (error) {
        if (error instanceof Refused) {
          this.stopped = true;
          return this.tell('refused', error.message);
        }
        // Anything else is the network's, and that comes back.
      }
      if (signal.aborted) {
        return;
      }
      this.failures += 1;
      const backoff = Math.max(RETRY_MS_MIN, Math.min(RETRY_MS_MAX, this.retry * 1.5 ** (this.failures - 1)));
      await this.pause(later.ms ?? backoff * (0.75 + Math.random() / 2), later.why ?? '', signal);
    }
  }

  // One connection, to its end. Gives why there is to be another one later, and when, if the server said so.
  async once(signal) {
    this.later = {};
    const headers = { Accept: 'text/event-stream', ...this.headers() };
    if (this.lastId !== '') {
      headers['Last-Event-ID'] = this.lastId;
    }
    const answer = await fetch(this.url, { headers, signal, cache: 'no-store' });
    if (!answer.ok) {
      return this.declined(answer);
    }
    const decoder = new TextDecoder();
    const frames = new Frames((frame) => this.receive(frame));
    const reader = answer.body.getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) {
          return this.later;
        }
        frames.push(decoder.decode(value, { stream: true }));
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  // A broker that is full or has had too many requests says when to come again; other refusals are final.
  async declined(answer) {
    const text = await answer.text();
    if (answer.status < 500 && answer.status !== 429) {
      throw new Refused(refusal(answer.status, text));
    }
    const seconds = Number(answer.headers.get('Retry-After'));
    return { why: refusal(answer.status, text), ms: seconds > 0 ? Math.min(seconds, LATER_S_MAX) * 1000 : undefined };
  }

  receive(frame) {
    if (frame.id !== null) {
      this.lastId = frame.id;
    }
    if (frame.type === 'refused' || frame.type === 'end') {
      this.later = parting(frame);
      return;
    }
    if (frame.retry !== null) {
      this.retry = frame.retry;
    }
    if (frame.type === 'connected') {
      this.failures = 0;
      this.tell('open');
    }
    if (!frame.hasData) {
      return;
    }
    try {
      this.take(frame);
    } catch (error) {
      // Not to be taken for the network's, which would only be tried again.
      reportError(error);
    }
  }

  async pause(ms, why, signal) {
    this.tell('waiting', why, formats.seconds(ms / 1000));
    await new Promise((resume) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resume();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener('abort', done);
    });
  }
}

class Refused extends Error {}

// The broker's last block, in words: it refused the stream for now, or has ended it; and when to come again.
const parting = (frame) => {
  const ms = frame.retry ?? undefined;
  try {
    const { data } = JSON.parse(frame.data);
    return { why: frame.type === 'refused' ? data.message : `the broker ended the stream: ${data.reason}`, ms };
  } catch {
    return { why: '', ms };
  }
};

