// ---- topics: the busiest first

class Topics {
  constructor(open) {
    this.open = open;
    this.body = byId('topics-body');
    this.table = byId('topics-table');
    this.rows = new Map();
  }

  show(topics) {
    byId('topics-none').hidden = topics.length > 0;
    this.table.hidden = topics.length === 0;
    const told = new Set(topics.map(({ topic }) => topic));
    for (const [topic, { row }] of this.rows) {
      if (!told.has(topic)) {
        row.remove();
        this.rows.delete(topic);
      }
    }
    topics.forEach((topic) => this.update(topic));
    this.arrange(topics);
    this.suggest(topics.map(({ topic }) => topic));
  }

  // The names that the forms offer; left alone while they are the same, since one may be open.
  suggest(names) {
    const known = [...names].sort().join();
    if (this.known !== known) {
      this.known = known;
      byId('known-topics').replaceChildren(...names.map((name) => element('option', { value: name })));
    }
  }

  // The order stays while somebody points at the table or is in it: a row must not slip away from under a click.
  arrange(topics) {
    if (this.table.matches(':hover, :focus-within') && this.body.children.length === topics.length) {
      return;
    }
    topics.forEach(({ topic }, n) => {
      const { row } = this.rows.get(topic);
      if (this.body.children[n] !== row) {
        this.body.insertBefore(row, this.body.children[n] ?? null);
      }
    });
  }

  update(topic) {
    const { cells } = this.rows.get(topic.topic) ?? this.add(topic.topic);
    const last = topic.last_published === null ? absent : formats.clock(new Date(topic.last_published));
    const texts = [
      formats.rate(topic.rate), formats.whole(topic.events_published), formats.bytes(topic.bytes_published),
      formats.whole(topic.events), formats.whole(topic.listeners), last,
    ];
    texts.forEach((text, n) => write(cells[n], text));
  }

  add(topic) {
    const button = element('button', { type: 'button', class: 'link', title: `Watch ${topic}` }, topic);
    button.addEventListener('click', () => this.open(topic));
    const cells = Array.from({ length: 6 }, () => element('td', { class: 'number' }));
    const row = element('tr', {}, element('th', { scope: 'row' }, button), ...cells);
    this.body.append(row);
    this.rows.set(topic, { row, cells });
    return this.rows.get(topic);
  }
}

