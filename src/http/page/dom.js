// ---- what all parts use: elements, and how numbers are written

const byId = (id) => document.getElementById(id);

// An element with attributes and children. Texts become text nodes, whatever they hold: nothing here is ever parsed
// as HTML.
const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children);
  return node;
};
const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const drawing = (name, attributes = {}, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);

// Sets a text only where it is another one: a selection in it survives, and screen readers are not told again.
const write = (node, text) => {
  if (node.textContent !== text) {
    node.textContent = text;
  }
};

// Three digits are what one reads of a figure that changes every second.
const threeDigits = (n) => String(Number(n.toFixed(n >= 100 ? 0 : n >= 10 ? 1 : 2)));

// A quantity by thousands, as [number, prefix].
const scaled = (n) => {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let at = 0;
  // What rounds to a thousand is one of the next.
  while (n >= 999.5 && at < prefixes.length - 1) {
    n /= 1000;
    at += 1;
  }
  return [threeDigits(n), prefixes[at]];
};

const formats = {
  // All digits, in groups.
  whole: (n) => n.toLocaleString('en'),
  short: (n) => (n < 10000 ? Math.round(n).toLocaleString('en') : scaled(n).join('\u202f')),
  rate: (n) => `${scaled(n).join('\u202f').trim()}/s`,
  bytes: (n) => {
    const [number, prefix] = scaled(n);
    return `${number}\u202f${prefix}B`;
  },
  byteRate: (n) => `${formats.bytes(n)}/s`,
  ms: (n) => (n < 999.5 ? `${threeDigits(n)}\u202fms` : `${threeDigits(n / 1000)}\u202fs`),
  seconds: (n) => (n < 60 ? `${threeDigits(n)}\u202fs` : formats.span(n)),
  span: (s) => {
    const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
    const first = units.findIndex(([, size]) => s >= size);
    const used = first < 0 ? units.slice(-1) : units.slice(first, first + 2);
    let left = Math.floor(s);
    const parts = used.map(([unit, size]) => {
      const n = Math.floor(left / size);
      left -= n * size;
      return `${n}\u202f${unit}`;
    });
    return parts.join(' ');
  },
  // The reader's own time of day.
  clock: (date) => date.toLocaleTimeString('en-GB'),
  clockMs: (date) => `${formats.clock(date)}.${String(date.getMilliseconds()).padStart(3, '0')}`,
};

const absent = '–';
const or = (format, value) => (value === null || value === undefined ? absent : format(value));

// A browser's storage; where it has none for pages, what is kept is kept until the page is left.
const storage = (kind) => {
  try {
    return window[kind];
  } catch {
    const held = new Map();
    return {
      getItem: (name) => held.get(name) ?? null,
      setItem: (name, value) => held.set(name, value),
      removeItem: (name) => held.delete(name),
    };
  }
};
const ofTab = storage('sessionStorage');
const ofBrowser = storage('localStorage');

// What the operator has shown, for this tab only. A key goes into `X-API-Key`, a token into `Authorization`.
const access = {
  get: (what) => ofTab.getItem(`fanfare.${what}`) ?? '',
  set: (what, value) => {
    if (value === '') {
      ofTab.removeItem(`fanfare.${what}`);
    } else {
      ofTab.setItem(`fanfare.${what}`, value);
    }
  },
  // The header for the first of these that is held.
  headers: (...order) => {
    const what = order.find((what) => access.get(what) !== '');
    switch (what) {
      case 'key':
        return { 'X-API-Key': access.get('key') };
      case 'token':
        return { Authorization: `Bearer ${access.get('token')}` };
      default:
        return {};
    }
  },
};

// What an answer that is no success says, in the server's own words.
const refusal = (status, text) => {
  try {
    const { error, message } = JSON.parse(text);
    return typeof error === 'object' ? `${status} ${error.code}: ${error.message}` : `${status} ${error}: ${message}`;
  } catch {
    return `${status}: ${text.slice(0, 500)}`;
  }
};

