// ---- the form to publish an event

class Publish {
  constructor(watch, changed) {
    this.form = byId('publish-form');
    this.answer = byId('publish-answer');
    this.button = byId('publish-button');
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
    this.form.addEventListener('input', () => {
      this.check();
      changed();
    });
    this.form.elements.data.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.repeat) {
        this.form.requestSubmit();
      }
    });
    byId('watch').addEventListener('click', () => watch(this.topic));
  }

  get topic() {
    return this.form.elements.topic.value || 'all';
  }

  // The request's body. The data go in as they were typed: read and written again, large numbers would be other ones.
  body() {
    const { topic, type, data } = this.form.elements;
    const parts = [['topic', topic.value], ['type', type.value]].filter(([, value]) => value !== '');
    const texts = parts.map(([name, value]) => `"${name}":${JSON.stringify(value)}`);
    if (data.value.trim() !== '') {
      texts.push(`"data":${data.value.trim()}`);
    }
    return `{${texts.join(',')}}`;
  }

  // Whether the data are JSON; what else there is to say of them, the server does.
  check() {
    const { data } = this.form.elements;
    let why = '';
    try {
      if (data.value.trim() !== '') {
        JSON.parse(data.value);
      }
    } catch (error) {
      why = `Not JSON: ${error.message}`;
    }
    write(byId('data-why'), why);
    data.setAttribute('aria-invalid', why !== '');
    return why === '';
  }

  async send() {
    if (!this.check()) {
      this.form.elements.data.focus();
      return;
    }
    this.button.disabled = true;
    try {
      const answer = await fetch('/api/v1/events/broadcast', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', ...access.headers('key', 'token') },
        body: this.body(),
      });
      const text = await answer.text();
      this.tell(answer.ok, answer.ok ? this.success(text) : `The server says ${refusal(answer.status, text)}`);
    } catch (error) {
      this.tell(false, `The server was not reached: ${error.message}`);
    }
    this.button.disabled = false;
  }

  success(text) {
    const { id, clients } = JSON.parse(text);
    return `Published as ${id}; streams connected: ${formats.whole(clients)}.`;
  }

  tell(published, text) {
    write(this.answer, text);
    this.answer.className = published ? 'success' : 'error';
    byId('watch').hidden = !published;
  }
}

