// ---- the live view: a stream's events as they come

// What is kept of them: rows that are shown, and as many that wait to be, in characters too.
const ROWS_MAX = 300;
const CHARS_MAX = 4 << 20;
// Drawn no more often than the eye can follow; what comes faster than that is counted.
const DRAW_MS = 100;
const PREVIEW_CHARS = 240;

// An event's payload as it was sent: parsed and written again, large numbers would be other ones. The envelope's
// outer shape is the server's; no topic has a comma in it, so the last of these is its own.
const payload = (type, data) => {
  const head = `{"type":${JSON.stringify(type)},"data":`;
  const end = data.lastIndexOf(',"timestamp":"');
  return data.startsWith(head) && end >= head.length ? data.slice(head.length, end) : data;
};

const interpret = ({ type, data, id, raw }) => {
  let envelope = {};
  try {
    envelope = JSON.parse(data);
  } catch {
    // Shown as it is.
  }
  return {
    type, id, raw, kind: 'event',
    at: new Date(envelope.timestamp ?? Date.now()),
    topic: String(envelope.topic ?? ''),
    text: payload(type, data),
    data: envelope.data ?? {},
  };
};

// What a gap means, in words.
const gapText = ({ requested, oldest, reason }) => {
  const why = reason === 'unknown_epoch'
    ? 'the broker has begun a new history (it was restarted)'
    : 'they are no longer kept';
  return `Events after ${requested} may be missing: ${why}. What there is begins at ${oldest}.`;
};

// A queue that lets go of its oldest when it holds too much; `push` gives how many.
class Backlog {
  constructor() {
    this.take();
  }

  push(event) {
    this.events.push(event);
    this.chars += event.raw.length;
    let dropped = 0;
    while (this.events.length > ROWS_MAX || (this.chars > CHARS_MAX && this.events.length > 1)) {
      this.chars -= this.events.shift().raw.length;
      dropped += 1;
    }
    return dropped;
  }

  take() {
    const { events } = this;
    this.events = [];
    this.chars = 0;
    return events ?? [];
  }
}

class Live {
  constructor() {
    this.form = byId('listen');
    this.body = byId('events-body');
    this.source = null;
    this.paused = false;
    this.filter = '';
    this.backlog = new Backlog();
    this.rows = [];
    this.reset();
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.toggle();
    });
    byId('filter').addEventListener('input', (event) => this.setFilter(event.target.value));
    byId('pause').addEventListener('click', () => this.setPaused(!this.paused));
    byId('clear').addEventListener('click', () => this.clear());
    byId('frame-close').addEventListener('click', () => this.closeFrame());
    this.body.addEventListener('click', (event) => this.select(event.target.closest('tr')));
    this.body.addEventListener('keydown', (event) => this.walk(event));
  }

  // Watches one topic, from what is kept of it on.
  open(topic) {
    this.stop();
    this.form.elements.topics.value = topic;
    this.form.elements.types.value = '';
    this.start();
    byId('live').scrollIntoView();
    byId('events').focus({ preventScroll: true });
  }

  toggle() {
    if (this.source === null) {
      this.start();
    } else {
      this.stop();
      this.tell('Stopped.');
    }
  }

  start() {
    this.clear();
    this.setPaused(false);
    const { topics, types, from } = this.form.elements;
    const query = new URLSearchParams(from.value);
    query.set('topics', topics.value.trim());
    if (types.value.trim() !== '') {
      query.set('types', types.value.trim());
    }
    this.source = new Source(`/api/v1/events?${query}`, {
      headers: () => access.headers('token', 'key'),
      take: (frame) => this.take(frame),
      tell: (...state) => this.changed(...state),
    });
    this.source.start();
    this.showButton();
  }

  stop() {
    this.source?.stop();
    this.source = null;
    this.showButton();
  }

  showButton() {
    const going = this.source !== null;
    write(byId('listen-button'), going ? 'Stop' : 'Listen');
    byId('listen-button').classList.toggle('primary', !going);
    for (const field of this.form.elements) {
      field.disabled = going && field.type !== 'submit';
    }
    byId('pause').disabled = !going && !this.paused;
    this.showEmpty();
  }

  changed(state, why, wait) {
    const cause = why ? `The server says ${why}` : 'The connection was lost';
    const texts = {
      connecting: 'Connecting…', open: 'Listening.', waiting: `${cause}. Trying again in ${wait}.`, refused: cause,
    };
    if (state === 'waiting' && this.state === 'open') {
      this.add({ kind: 'note', at: new Date(), text: 'The connection was lost.' });
    } else if (state === 'open' && this.state !== undefined) {
      this.add({ kind: 'note', at: new Date(), text: 'Connected again, from where it was.' });
    }
    if (state === 'open' || state === 'waiting') {
      this.state = state;
    }
    this.tell(texts[state], state === 'refused');
    if (state === 'refused') {
      this.stop();
    }
  }

  tell(text, wrong = false) {
    write(byId('live-state'), text);
    byId('live-state').classList.toggle('error', wrong);
  }

  take(frame) {
    if (frame.type === 'connected' || frame.type === 'heartbeat') {
      return;
    }
    if (frame.type === 'gap') {
      const event = interpret(frame);
      this.add({ ...event, kind: 'gap', text: gapText(event.data) });
      return;
    }
    this.received += 1;
    if (!this.matches(frame)) {
      this.filtered += 1;
    } else {
      // Read only if it is drawn.
      this.add({ frame, raw: frame.raw });
    }
    this.schedule();
  }

  add(event) {
    this.skipped += this.backlog.push({ raw: '', ...event });
    this.schedule();
  }

  matches({ raw }) {
    return this.filter === '' || raw.toLowerCase().includes(this.filter);
  }

  setFilter(text) {
    this.filter = text.trim().toLowerCase();
    for (const { event, row } of this.rows) {
      row.hidden = event.kind === 'event' && !this.matches(event);
    }
    this.rove();
    this.showEmpty();
  }

  setPaused(paused) {
    this.paused = paused;
    byId('pause').classList.toggle('on', paused);
    write(byId('pause'), paused ? 'Resume' : 'Pause');
    this.schedule();
  }

  clear() {
    this.backlog.take();
    this.rows = [];
    this.body.replaceChildren();
    this.closeFrame();
    this.reset();
    this.schedule();
  }

  reset() {
    Object.assign(this, { received: 0, filtered: 0, skipped: 0 });
    this.state = this.source === null ? undefined : this.state;
  }

  // One drawing at a time, in the browser's own frame.
  schedule() {
    if (this.timer === undefined) {
      this.timer = setTimeout(() => requestAnimationFrame(() => {
        this.timer = undefined;
        this.draw();
      }), DRAW_MS);
    }
  }

  draw() {
    if (!this.paused) {
      this.addRows(this.backlog.take());
    }
    this.showCounts();
    this.showEmpty();
  }

  // The newest on top.
  addRows(events) {
    const added = events.map((event) => {
      const read = event.frame === undefined ? event : interpret(event.frame);
      return { event: read, row: this.row(read) };
    }).reverse();
    this.body.prepend(...added.map(({ row }) => row));
    this.rows = [...added, ...this.rows];
    let chars = 0;
    const fits = ({ event: { raw } }, n) => n < ROWS_MAX && (chars += raw.length) <= CHARS_MAX;
    const cut = this.rows.findIndex((row, n) => n > 0 && !fits(row, n));
    if (cut > 0) {
      this.rows.splice(cut).forEach(({ row }) => row.remove());
    }
    if (added.length > 0) {
      this.rove();
    }
  }

  row(event) {
    const at = this.cell('time', formats.clockMs(event.at));
    if (event.kind === 'note') {
      return this.wide('note', at, event.text);
    }
    const button = element('button', { type: 'button', class: 'link', tabindex: '-1', title: 'Show the raw frame' });
    if (event.kind === 'gap') {
      button.append('gap');
      return this.wide('gap', at, button, ` ${event.text}`);
    }
    button.append(event.type);
    const preview = event.text.length > PREVIEW_CHARS ? `${event.text.slice(0, PREVIEW_CHARS)}…` : event.text;
    const topic = this.cell('topic', event.topic);
    topic.title = event.topic;
    return element('tr', { class: 'event', role: 'row' }, at, topic, this.cell('type', button), this.cell('data', preview));
  }

  // The roles say what the style sheet takes away where it lays a row out as something else.
  cell(name, child) {
    return element('td', { class: name, role: 'cell' }, child);
  }

  wide(name, at, ...children) {
    return element('tr', { class: name, role: 'row' }, at, element('td', { colspan: '3', role: 'cell' }, ...children));
  }

  showCounts() {
    const parts = [`${formats.whole(this.received)} received`];
    if (this.filtered > 0) {
      parts.push(`${formats.whole(this.filtered)} not matching`);
    }
    if (this.skipped > 0) {
      parts.push(`${formats.whole(this.skipped)} skipped: more came than is shown`);
    }
    if (this.paused) {
      parts.push(`${formats.whole(this.backlog.events.length)} held back`);
    }
    write(byId('live-counts'), this.source === null && this.received === 0 ? '' : parts.join(' · '));
  }

  showEmpty() {
    const shown = this.rows.some(({ row }) => !row.hidden);
    byId('events-none').hidden = shown;
    byId('events-table').hidden = !shown;
    const listening = this.filter !== '' && this.received > 0
      ? 'None of the events so far matches the filter.'
      : 'Nothing has come yet. Publish something with the form below.';
    write(byId('events-none'), this.source === null ? 'Choose topics and listen, or click a topic.' : listening);
  }

  // Of all rows one is in the tab order; arrows lead to the others.
  buttons() {
    return [...this.body.querySelectorAll('tr:not([hidden]) button')];
  }

  rove(to) {
    const buttons = this.buttons();
    const current = to ?? buttons.find((button) => button.tabIndex === 0) ?? buttons[0];
    this.body.querySelectorAll('button[tabindex="0"]').forEach((button) => (button.tabIndex = -1));
    if (current !== undefined) {
      current.tabIndex = 0;
    }
  }

  walk(event) {
    const buttons = this.buttons();
    const at = buttons.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at >= 0 && buttons[to] !== undefined) {
      event.preventDefault();
      this.rove(buttons[to]);
      buttons[to].focus();
    }
  }

  select(row) {
    const chosen = this.rows.find((other) => other.row === row);
    if (chosen === undefined || chosen.event.kind === 'note') {
      return;
    }
    this.rows.forEach(({ row: other }) => other.removeAttribute('aria-current'));
    row.setAttribute('aria-current', 'true');
    this.rove(row.querySelector('button'));
    write(byId('frame-text'), chosen.event.raw);
    byId('frame').hidden = false;
  }

  closeFrame() {
    const row = this.body.querySelector('[aria-current]');
    row?.removeAttribute('aria-current');
    const hadFocus = byId('frame').contains(document.activeElement);
    byId('frame').hidden = true;
    if (hadFocus) {
      (row?.querySelector('button') ?? byId('events')).focus();
    }
  }
}

