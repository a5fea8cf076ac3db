// ---- charts: lines over the last five minutes, as SVG, so that the style sheet has all the colours

const SPAN_MS = 300_000;
// Samples come every second; where one is missing, so is the line.
const BREAK_MS = 2500;
const BOX = { height: 120, top: 8, bottom: 18, left: 54, right: 8 };

// The least of these times a power of ten that is no less: its half is as easy to read.
const niceCeiling = (n) => {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((candidate) => candidate >= n * 0.999999);
};

// `samples` is the list that all charts share: {at, …}, oldest first. A series is {name, of}, of which gives a sample's
// value or null; `least` is what the scale shows at least.
class Chart {
  constructor({ title, format, series, least }, samples) {
    Object.assign(this, { title, format, series, least, samples, cursor: null, width: 0 });
    this.grid = drawing('g', { class: 'grid' });
    this.lines = series.map((_, n) => drawing('path', { class: `line series-${n}` }));
    this.area = drawing('path', { class: 'area' });
    this.mark = drawing('line', { class: 'mark', y1: BOX.top, y2: BOX.height - BOX.bottom });
    this.svg = drawing('svg', { class: 'chart', height: BOX.height, role: 'img', tabindex: '0' });
    this.svg.append(this.grid, this.area, ...this.lines, this.mark);
    this.reading = element('p', { class: 'reading', 'aria-live': 'off' });
    new ResizeObserver(([entry]) => this.resize(Math.round(entry.contentRect.width))).observe(this.svg);
    this.watch();
  }

  resize(width) {
    if (width !== this.width && width > 0) {
      this.width = width;
      this.draw();
    }
  }

  // A cursor, by pointer or by arrow keys, reads one moment's values.
  watch() {
    this.svg.addEventListener('pointermove', ({ clientX }) => {
      this.point(this.timeAt(clientX - this.svg.getBoundingClientRect().left));
    });
    this.svg.addEventListener('pointerleave', () => this.point(null));
    this.svg.addEventListener('blur', () => this.point(null));
    this.svg.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined || this.samples.length === 0) {
        return;
      }
      event.preventDefault();
      const last = this.samples.length - 1;
      const at = this.cursor === null ? last : this.nearest(this.cursor) + step * (event.shiftKey ? 10 : 1);
      this.point(this.samples[Math.min(last, Math.max(0, at))].at);
      this.reading.setAttribute('aria-live', 'polite');
    });
  }

  point(time) {
    this.cursor = time;
    this.reading.setAttribute('aria-live', 'off');
    this.drawCursor();
  }

  get end() {
    return this.samples.length === 0 ? 0 : this.samples[this.samples.length - 1].at;
  }

  x(time) {
    return this.width - BOX.right - ((this.end - time) / SPAN_MS) * (this.width - BOX.left - BOX.right);
  }

  timeAt(x) {
    return this.end - ((this.width - BOX.right - x) / (this.width - BOX.left - BOX.right)) * SPAN_MS;
  }

  y(value) {
    const floor = BOX.height - BOX.bottom;
    return floor - (value / this.most) * (floor - BOX.top);
  }

  nearest(time) {
    const away = this.samples.map(({ at }) => Math.abs(at - time));
    return away.indexOf(Math.min(...away));
  }

  draw() {
    if (this.width === 0 || this.samples.length === 0) {
      return;
    }
    this.svg.setAttribute('viewBox', `0 0 ${this.width} ${BOX.height}`);
    const values = this.series.flatMap(({ of }) => this.samples.map(of)).filter((value) => value !== null);
    this.most = niceCeiling(Math.max(this.least, ...values));
    this.drawGrid();
    this.series.forEach(({ of }, n) => this.lines[n].setAttribute('d', this.path(of)));
    this.area.setAttribute('d', this.areaBelow(this.series[0].of));
    this.drawCursor();
    this.describe();
  }

  drawGrid() {
    const right = this.width - BOX.right;
    const levels = [0, this.most / 2, this.most].map((value) => {
      const y = this.y(value);
      return [
        drawing('line', { x1: BOX.left, x2: right, y1: y, y2: y }),
        drawing('text', { x: BOX.left - 6, y: y + 3.5, 'text-anchor': 'end' }, this.format(value)),
      ];
    });
    const minutes = (this.width < 400 ? [4, 2, 0] : [5, 4, 3, 2, 1, 0]).map((minute) => {
      const anchor = { 5: 'start', 0: 'end' }[minute] ?? 'middle';
      const x = this.x(this.end - minute * 60_000);
      const text = minute === 0 ? 'now' : `−${minute}\u202fmin`;
      return drawing('text', { x, y: BOX.height - 4, 'text-anchor': anchor }, text);
    });
    this.grid.replaceChildren(...levels.flat(), ...minutes);
  }

  // The runs of samples that have a value and follow each other.
  runs(of) {
    const runs = [];
    let before = null;
    for (const sample of this.samples) {
      const value = of(sample);
      if (value !== null) {
        if (before === null || sample.at - before > BREAK_MS) {
          runs.push([]);
        }
        runs[runs.length - 1].push([this.x(sample.at).toFixed(1), this.y(value).toFixed(1)]);
      }
      before = value === null ? null : sample.at;
    }
    return runs;
  }

  // A run of one is a dot, which a line of no length draws with round caps.
  path(of) {
    return this.runs(of).map((run) => `M${run.join('L')}${run.length === 1 ? 'h0' : ''}`).join('');
  }

  areaBelow(of) {
    const floor = this.y(0);
    return this.runs(of).map((run) => `M${run[0][0]},${floor}L${run.join('L')}V${floor}Z`).join('');
  }

  drawCursor() {
    const sample = this.cursor === null ? undefined : this.samples[this.nearest(this.cursor)];
    this.mark.classList.toggle('shown', sample !== undefined);
    if (sample === undefined) {
      write(this.reading, '');
      return;
    }
    const x = this.x(sample.at);
    fill(this.mark, { x1: x, x2: x }, []);
    write(this.reading, `${formats.clock(new Date(sample.at))}  ${this.values(sample)}`);
  }

  values(sample) {
    return this.series.map(({ name, of }) => `${name} ${or(this.format, of(sample))}`).join(', ');
  }

  describe() {
    const now = this.samples[this.samples.length - 1];
    const label = `${this.title}, the last five minutes. Now: ${this.values(now)}. Arrow keys read earlier values.`;
    this.svg.setAttribute('aria-label', label);
  }
}

