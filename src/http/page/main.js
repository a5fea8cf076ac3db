// ---- the page: its parts put together

// The stream of stats, from which all figures come.
class Monitor {
  constructor(figures, topics) {
    Object.assign(this, { figures, topics, started: null, lost: false });
    this.source = new Source('/api/v1/events/stats/stream?last=300', {
      headers: () => access.headers('key'),
      take: (frame) => this.take(frame),
      tell: (...state) => this.changed(...state),
    });
    // A tab that nobody sees needs no figures; browsers allow six connections to a server, over all tabs. The stats
    // are kept for as long as the charts go back, so nothing is missing afterwards.
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) {
        this.source.stop();
      } else {
        this.source.start();
      }
    });
    this.source.start();
  }

  take(frame) {
    if (frame.type !== 'stats') {
      return;
    }
    const { data, timestamp } = JSON.parse(frame.data);
    if (this.started !== null && data.started !== this.started) {
      this.note(`The broker was restarted at ${formats.clock(new Date(data.started))}.`);
    }
    this.started = data.started;
    // Of the topics only the last is of interest.
    const { topics = [], ...sample } = data;
    this.figures.take({ ...sample, at: Date.parse(timestamp) });
    this.draw(topics);
  }

  // Many samples at once, as when the page is opened, are drawn once.
  draw(topics) {
    if (this.latest === undefined) {
      requestAnimationFrame(() => {
        this.figures.show();
        this.topics.show(this.latest);
        this.latest = undefined;
      });
    }
    this.latest = topics;
  }

  changed(state, why, wait) {
    const texts = { connecting: 'Connecting…', open: 'Live', waiting: `Lost; again in ${wait}`, refused: 'Refused' };
    write(byId('connection'), texts[state]);
    byId('connection').dataset.state = state;
    clearTimeout(this.patience);
    if (state === 'connecting') {
      this.patience = setTimeout(() => this.note('Still connecting. Browsers allow six connections to a server'
        + ' without HTTP/2: other tabs may hold them all.'), 6000);
    }
    if (state === 'open') {
      this.note(this.lost ? `Connected again at ${formats.clock(new Date())}.` : '');
      this.lost = false;
    } else if (why) {
      this.note(`The server says ${why}`);
    } else if (state === 'waiting' && !this.lost) {
      this.lost = true;
      this.note(`The connection was lost at ${formats.clock(new Date())}. What is shown is from before.`);
    }
  }

  note(text) {
    write(byId('notice'), text);
    byId('notice').hidden = text === '';
  }
}

// Light, dark, or as the system has it.
const prepareTheme = () => {
  const themes = ['auto', 'light', 'dark'];
  const button = byId('theme');
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    write(button, `Theme: ${theme}`);
  };
  const held = ofBrowser.getItem('fanfare.theme');
  show(themes.includes(held) ? held : 'auto');
  button.addEventListener('click', () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    ofBrowser.setItem('fanfare.theme', next);
    show(next);
  });
};

// What is shown to the server with each request, for as long as this tab is open.
const prepareAccess = (changed) => {
  const dialog = byId('access-dialog');
  const form = byId('access-form');
  const held = () => access.get('key') !== '' || access.get('token') !== '';
  const show = () => {
    byId('sign-out').hidden = !held();
  };
  byId('access').addEventListener('click', () => {
    form.elements.key.value = access.get('key');
    form.elements.token.value = access.get('token');
    dialog.showModal();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    access.set('key', form.elements.key.value.trim());
    access.set('token', form.elements.token.value.trim());
    dialog.close();
    show();
    changed();
  });
  byId('access-cancel').addEventListener('click', () => dialog.close());
  byId('sign-out').addEventListener('click', () => {
    access.set('key', '');
    access.set('token', '');
    location.reload();
  });
  show();
};

const figures = new Figures();
const live = new Live();
const topics = new Topics((topic) => live.open(topic));
const publish = new Publish((topic) => live.open(topic), () => example());
const example = () => {
  const type = publish.form.elements.type.value || 'notification';
  showSnippets({ topic: publish.topic, type, body: publish.body() });
};
const monitor = new Monitor(figures, topics);
document.title = `Fanfare · ${location.host}`;
prepareTheme();
// Refused streams are not opened again by themselves.
prepareAccess(() => monitor.source.start());
prepareSnippets();
example();
