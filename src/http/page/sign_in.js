'use strict';
// Asks for the operator's key and puts the page in this document's place. A key that this tab holds is tried at once,
// so that loading the page again asks for nothing.
(() => {
  const NAME = 'fanfare.key';
  const form = document.getElementById('door');
  const field = document.getElementById('key');
  const why = document.getElementById('why');
  const button = form.querySelector('button');

  const tell = (text) => {
    why.textContent = text;
    why.hidden = text === '';
  };

  // What a refusal says, as every answer here that is none of the page.
  const reason = async (answer) => {
    const text = await answer.text();
    try {
      return JSON.parse(text).error.message;
    } catch {
      return `the server answered ${answer.status}`;
    }
  };

  const enter = async (key) => {
    const answer = await fetch('/', { headers: { 'X-API-Key': key }, cache: 'no-store' });
    if (!answer.ok) {
      if (answer.status === 401 || answer.status === 403) {
        sessionStorage.removeItem(NAME);
      }
      throw new Error(await reason(answer));
    }
    const page = await answer.text();
    sessionStorage.setItem(NAME, key);
    document.open();
    document.write(page);
    document.close();
  };

  const attempt = async (key) => {
    button.disabled = true;
    try {
      await enter(key);
    } catch (error) {
      tell(`Not signed in: ${error.message}.`);
      button.disabled = false;
      field.select();
    }
  };

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    tell('');
    attempt(field.value);
  });
  const held = sessionStorage.getItem(NAME);
  if (held !== null) {
    attempt(held);
  }
})();
