// ---- figures: cards with a number and a chart each, and all counters in short

// The seconds over which rates and latencies are told are the server's; they are averages over ten seconds.
const cards = [
  {
    title: 'Streams', format: formats.short, least: 4,
    series: [{ name: 'connected', of: (s) => s.connected_clients }],
    figure: (s) => formats.short(s.connected_clients),
    more: (s) => `of ${formats.short(s.max_clients)} at most`,
  },
  {
    title: 'Events in', format: formats.rate, least: 4,
    series: [{ name: 'published', of: (s) => s.rates.published }],
    figure: (s) => formats.rate(s.rates.published),
    more: (s) => `${formats.byteRate(s.rates.published_bytes)} · ${formats.short(s.events)} in all`,
  },
  {
    title: 'Events out', format: formats.rate, least: 4,
    series: [{ name: 'delivered', of: (s) => s.rates.delivered }],
    figure: (s) => formats.rate(s.rates.delivered),
    more: (s) => `${formats.byteRate(s.rates.delivered_bytes)} · ${formats.short(s.streams.delivered)} in all`,
  },
  {
    title: 'Publish latency', format: formats.ms, least: 0.5, note: 'from a request’s head to its answer',
    series: [
      { name: 'p50', of: (s) => s.latency.publish.p50_ms },
      { name: 'p99', of: (s) => s.latency.publish.p99_ms },
    ],
  },
  {
    title: 'Fan-out latency', format: formats.ms, least: 0.5, note: 'from accepted to written',
    series: [
      { name: 'p50', of: (s) => s.latency.fanout.p50_ms },
      { name: 'p99', of: (s) => s.latency.fanout.p99_ms },
    ],
  },
  {
    title: 'Memory', format: formats.bytes, least: 1e6,
    series: [
      { name: 'process', of: (s) => s.memory_bytes },
      { name: 'history', of: (s) => s.history.bytes },
    ],
    more: (s) => `${formats.whole(s.history.events)} events kept`,
  },
];

// One card: its figure is that of its series, unless it says how it is written.
class Card {
  constructor(card, samples) {
    this.card = card;
    this.chart = new Chart(card, samples);
    this.more = element('p', { class: 'more' }, card.note ?? '');
    const legend = card.series.map(({ name }, n) => this.entry(name, n));
    this.figures = legend.map(({ figure }) => figure);
    const id = `card-${card.title.toLowerCase().replaceAll(' ', '-')}`;
    this.node = element('article', { class: 'card', 'aria-labelledby': id },
      element('header', {}, element('h3', { id }, card.title), this.chart.reading),
      element('p', { class: 'figures' }, ...legend.map(({ node }) => node)),
      this.more, this.chart.svg);
  }

  entry(name, n) {
    const figure = element('b', {}, absent);
    const label = this.card.series.length > 1 ? [element('span', { class: `key series-${n}` }, name)] : [];
    return { figure, node: element('span', { class: 'figure' }, figure, ...label) };
  }

  show(sample) {
    const { series, format, figure, more } = this.card;
    series.forEach(({ of }, n) => write(this.figures[n], figure ? figure(sample) : or(format, of(sample))));
    if (more) {
      write(this.more, more(sample));
    }
    this.chart.draw();
  }
}

// What the counters are called here; one that is not named goes by its own name.
const names = {
  states: {
    live: 'live', replaying: 'catching up', stalled: 'stalled', carried: 'over TLS or HTTP/2', ending: 'ending',
  },
  closed: {
    client_closed: 'by the client', connection_reset: 'connection broke', peer_timeout: 'peer silent',
    stalled: 'stalled too long', limit_reached: 'had its limit', unexpected_input: 'sent data',
    token_expired: 'token expired', kicked: 'by an operator', drained: 'broker stopped',
    drain_deadline: 'broker stopped, cut',
  },
  limits: {
    refused_publishes_address: 'publishes, of an address', refused_publishes_key: 'publishes, of a key',
    refused_connections: 'connections, of an address', refused_streams_address: 'streams, of an address',
    refused_streams_user: 'streams, of a user', crowded: 'shared a bucket',
  },
};
const named = (group, counts) =>
  Object.entries(counts).map(([name, n]) => [names[group]?.[name] ?? name.replaceAll('_', ' '), n]);

// The lists of counters: what they are called, what is in them, and whether more than none is worth a look.
const lists = [
  ['Streams by state', (s) => named('states', s.states), ['stalled']],
  ['Streams closed', (s) => named('closed', s.streams.closed), ['stalled too long', 'peer silent', 'broker stopped, cut']],
  ['Delivery', (s) => [
    ['streams opened', s.streams.opened],
    ['events delivered', s.streams.delivered],
    ['writes', s.streams.writes],
    ['heartbeats', s.streams.heartbeats],
    ['stalls', s.streams.stalls],
    ['gaps told', s.streams.gaps],
    ['resumed from before a restart', s.streams.unknown_epochs],
    ['shard lags', s.streams.lags],
    ['slowest stream, events behind', s.slowest.events],
  ], ['stalls', 'gaps told', 'shard lags']],
  ['Limits hit', (s) => [
    ['streams, of the broker', s.refused],
    ...named('limits', s.limits).filter(([name]) => name !== 'addresses'),
    ['connections, for want of files', s.connections.refused_exhausted],
    ['heads too slow', s.connections.slow_heads],
    ['HTTP/2 broken', s.connections.http2_errors],
  ], 'all'],
  ['Requests refused', (s) => Object.entries(s.problems), 'all'],
  ['Repeats', (s) => named('idempotency', s.idempotency), ['evicted']],
  // Only where tokens are verified with a key set that is fetched.
  ['Key set', (s) => s.key_set ? [
    ['keys', s.key_set.keys],
    ['age in seconds', s.key_set.age_seconds ?? 0],
    ['fetches', s.key_set.fetches],
    ['fetches that failed', s.key_set.failed_fetches],
  ] : [], ['fetches that failed'], true],
];

class CounterList {
  constructor([title, of, notable, optional = false]) {
    Object.assign(this, { of, notable, optional, rows: new Map() });
    this.list = element('dl', {});
    this.none = element('p', { class: 'hint' }, 'none so far');
    this.node = element('section', { class: 'counters' }, element('h3', {}, title), this.list, this.none);
  }

  show(sample) {
    const counts = this.of(sample);
    this.none.hidden = counts.length > 0;
    this.node.hidden = this.optional && counts.length === 0;
    for (const [name, n] of counts) {
      const { row, figure } = this.row(name);
      write(figure, formats.whole(n));
      const notable = n > 0 && (this.notable === 'all' || this.notable.includes(name));
      row.className = n === 0 ? 'zero' : notable ? 'notable' : '';
    }
  }

  row(name) {
    if (!this.rows.has(name)) {
      const figure = element('dd', {});
      const row = element('div', {}, element('dt', {}, name), figure);
      this.list.append(row);
      this.rows.set(name, { row, figure });
    }
    return this.rows.get(name);
  }
}

class Figures {
  constructor() {
    this.samples = [];
    this.cards = cards.map((card) => new Card(card, this.samples));
    this.lists = lists.map((list) => new CounterList(list));
    byId('cards').append(...this.cards.map(({ node }) => node));
    byId('counters').append(...this.lists.map(({ node }) => node));
  }

  take(sample) {
    this.samples.push(sample);
    const old = this.samples.findIndex(({ at }) => at > sample.at - SPAN_MS);
    this.samples.splice(0, Math.max(0, old));
  }

  // Shows the last one.
  show() {
    const sample = this.samples[this.samples.length - 1];
    for (const part of [...this.cards, ...this.lists]) {
      part.show(sample);
    }
    write(byId('version'), sample.version);
    write(byId('status'), sample.status);
    write(byId('uptime'), formats.span(sample.uptime_seconds));
    write(byId('topic-count'), formats.whole(sample.history.topics));
    write(byId('slowest'), formats.seconds(sample.slowest.seconds));
    write(byId('oldest'), sample.history.oldest);
    write(byId('newest'), sample.history.newest);
    byId('overview').removeAttribute('aria-busy');
  }
}

