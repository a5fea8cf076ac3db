// ---- how to connect, as lines to copy

// Topics are anybody's text, and these lines are to be pasted into a shell: nothing may end the quotes.
const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const copy = async (text, button) => {
  try {
    // Only pages that came encrypted, or from this machine, have a clipboard.
    await navigator.clipboard.writeText(text);
    write(button, 'Copied');
  } catch {
    getSelection().selectAllChildren(button.closest('.snippet').querySelector('code'));
    write(button, 'Press Ctrl+C');
  }
  setTimeout(() => write(button, 'Copy'), 2000);
};

const needs = document.documentElement.dataset;

// The lines for a topic, a type and a request's body.
const snippets = ({ topic, type, body }) => {
  const base = location.origin;
  const events = `${base}/api/v1/events?topics=${encodeURIComponent(topic)}`;
  const quoted = JSON.stringify(needs.tokens === 'true' ? `${events}&access_token=` : events);
  const address = needs.tokens === 'true' ? `${quoted} + token` : quoted;
  const token = needs.tokens === 'true' ? ' -H "Authorization: Bearer $TOKEN"' : '';
  const key = needs.keys === 'true' ? ' -H "X-API-Key: $KEY"' : '';
  return {
    'snippet-page': [
      `const source = new EventSource(${address});`,
      `source.addEventListener(${JSON.stringify(type)}, (event) => {`,
      '  console.log(event.lastEventId, JSON.parse(event.data));',
      '});',
    ].join('\n'),
    'snippet-listen': `curl -N${token} ${shellQuoted(events)}`,
    'snippet-publish': `curl${key} -H 'Content-Type: application/json' \\\n  -d ${shellQuoted(body)} \\\n  `
      + shellQuoted(`${base}/api/v1/events/broadcast`),
  };
};

const showSnippets = (what) => {
  for (const [id, text] of Object.entries(snippets(what))) {
    write(byId(id), text);
  }
};

const prepareSnippets = () => {
  byId('needs-token').hidden = needs.tokens !== 'true';
  byId('needs-key').hidden = needs.keys !== 'true';
  for (const button of document.querySelectorAll('.copy')) {
    button.addEventListener('click', () => copy(byId(button.dataset.of).textContent, button));
  }
};

