"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 560px)");
  const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
  let chosen = null; // the theme that the reader has chosen, else the system's
  let printing = false;
  const charts = new Map();

  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const triggerColor = (name) => color(/^[a-z]+$/.test(name) ? name : "unknown") || color("unknown");

  function axis(label, more) {
    return {
      label, stroke: color("muted"), font: FONT, labelFont: FONT, labelSize: 22, gap: 6,
      grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, ...more,
    };
  }

  // As wide as the longest number on it.
  const yAxis = (label) =>
    axis(label, { size: (u, values) => 16 + 7 * Math.max(2, ...(values || []).map((one) => one.length)) });

  // All that is drawn lies within, the faded lines too. Lines begin at 0 where that wastes no more than half of the
  // place, bars do so always.
  function reach(numbers, from = "") {
    let [low, high] = [Infinity, -Infinity];
    for (const one of numbers) {
      if (one === null) continue;
      low = Math.min(low, one);
      high = Math.max(high, one);
    }
    if (low > high) return [0, 1];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    if (from === "zero" || (from === "near zero" && low <= high / 2)) return [Math.min(0, low), (high || 1) + room];
    return [low - room, high + room];
  }

  function clipped(u, draw) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    draw(ctx, bbox, (x) => u.valToPos(x, "x", true), (y) => u.valToPos(y, "y", true));
    ctx.restore();
  }

  function tip(describe) {
    let box = null;
    return {
      init: (u) => {
        box = document.createElement("div");
        box.className = "tip";
        box.hidden = true;
        u.over.append(box);
      },
      setCursor: (u) => {
        const { left, top, idx } = u.cursor;
        const text = left < 0 || idx == null ? "" : describe(u, idx, left);
        box.hidden = !text;
        if (!text) return;
        box.textContent = text; // never as HTML: names come from the training
        const right = left > u.over.clientWidth / 2;
        box.style.transform = `translate(${left + (right ? -12 - box.offsetWidth : 12)}px, ${Math.max(0, top - 20)}px)`;
      },
    };
  }

  function show(id, options, columns) {
    const element = document.querySelector(`#${id} .chart`);
    if (!element) return;
    charts.get(id)?.destroy();
    const size = () => ({ width: element.clientWidth, height: narrow.matches ? 240 : options.height || 300 });
    const u = new uPlot({ ...size(), legend: { show: false }, padding: [10, 10, 0, 0], ...options }, columns, element);
    charts.set(id, u);
    element.chart = u;
    element.fit = () => u.setSize(size());
  }

  function curve(id, one, labels, marks) {
    const xs = [one.kept, ...one.redone].flatMap((points) => points[0]);
    const ys = [one.kept, ...one.redone].flatMap((points) => points[1]);
    const ends = reach(xs, "near zero");
    const columns = one.kept[0].length ? one.kept : [[ends[0]], [null]];
    const whole = (from, to) => from <= columns[0][0] && to >= columns[0].at(-1); // not zoomed into
    const under = (u) => clipped(u, (ctx, bbox, x, y) => {
      if (marks) {
        ctx.fillStyle = color("band");
        for (const gap of data.interruptions) {
          ctx.fillRect(x(gap.from), bbox.top, Math.max(2 * devicePixelRatio, x(gap.to) - x(gap.from)), bbox.height);
        }
      }
      ctx.strokeStyle = color("redone");
      if (marks) {
        ctx.lineWidth = 1.5 * devicePixelRatio;
        ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
        for (const gap of data.interruptions.filter((gap) => gap.before !== null && gap.after !== null)) {
          ctx.beginPath();
          ctx.moveTo(x(gap.from), y(gap.before));
          ctx.lineTo(x(gap.to), y(gap.after));
          ctx.stroke();
        }
        ctx.setLineDash([]);
      }
      ctx.globalAlpha = 0.4;
      ctx.lineWidth = (marks ? 7 : 4) * devicePixelRatio;
      ctx.lineJoin = ctx.lineCap = "round";
      for (const [across, up] of one.redone) {
        ctx.beginPath();
        across.forEach((value, at) => ctx.lineTo(x(value), y(up[at])));
        ctx.stroke();
      }
    });
    const over = (u) => clipped(u, (ctx, bbox, x, y) => {
      ctx.fillStyle = color("card");
      ctx.strokeStyle = color("line");
      ctx.lineWidth = 1.75 * devicePixelRatio;
      let before = -Infinity;
      for (const [across, up] of one.snapshots || []) {
        if (Math.abs(x(across) - before) < 9 * devicePixelRatio) continue; // no room; there is when one looks closer
        before = x(across);
        ctx.beginPath();
        ctx.arc(x(across), y(up), 3.5 * devicePixelRatio, 0, 2 * Math.PI);
        ctx.fill();
        ctx.stroke();
      }
    });
    const pointer = tip((u, at, left) => {
      const value = u.posToVal(left, "x");
      const gap = marks && data.interruptions.find((one) => {
        return u.valToPos(one.from, "x") - 5 <= left && left <= u.valToPos(one.to, "x") + 5;
      });
      if (gap) return gap.text;
      const y = columns[1][at];
      return y == null ? `${labels.x}: ${number.format(value)}`
        : `${labels.x}: ${number.format(columns[0][at])}\n${labels.y}: ${number.format(y)}`;
    });
    show(id, {
      scales: {
        x: { time: false, range: (u, from, to) => (whole(from, to) ? ends : [from, to]) },
        y: { range: () => reach(ys, marks ? "near zero" : "") },
      },
      axes: [axis(labels.x, { size: 28 }), yAxis(labels.y)],
      series: [{}, {
        stroke: color("line"), width: 2, points: { show: columns[0].length < 40, size: 5, fill: color("line") },
      }],
      cursor: { y: false, points: { size: 8 } },
      hooks: {
        drawAxes: [under], draw: [over], init: [pointer.init], setCursor: [pointer.setCursor],
      },
    }, columns);
  }

  function bars(id, spec, series, describe) {
    const numbers = spec.bars.map((bar) => bar[0]);
    const [first, last] = [numbers[0], numbers.at(-1)];
    const pointer = tip((u, at) => describe(spec.bars[at]));
    show(id, {
      height: 270,
      scales: {
        x: { time: false, range: (u, from, to) => [Math.max(from, first) - 0.7, Math.min(to, last) + 0.7] },
        y: { range: () => reach(series.flatMap((one) => one.values), "zero") },
      },
      axes: [
        axis(spec.x, { size: 28, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000], grid: { show: false } }),
        yAxis(spec.y),
      ],
      series: [{}, ...series.map((one) => ({
        fill: one.color, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.72, 34], radius: 0.12 }),
      }))],
      cursor: { x: false, y: false, points: { show: false } },
      hooks: { init: [pointer.init], setCursor: [pointer.setCursor] },
    }, [numbers, ...series.map((one) => one.values)]);
  }

  const select = document.getElementById("metric");
  data.metrics.curves.forEach((one, at) => select.add(new Option(one.name, at)));

  function drawMetric() {
    const one = data.metrics.curves[select?.value];
    if (!one) return;
    curve("metrics", one, { x: data.metrics.x, y: one.name }, false);
    document.querySelector("#metrics .chart").setAttribute("aria-label", `${one.name} over: ${data.metrics.x}`);
  }

  function draw() {
    root.dataset.theme = printing ? "light" : chosen || (dark.matches ? "dark" : "light");
    for (const one of document.querySelectorAll("i.trigger")) one.style.background = triggerColor(one.dataset.trigger);
    if (data.progress) curve("progress", data.progress, data.progress, true);
    drawMetric();
    if (data.pauses) {
      const names = [...new Set(data.pauses.bars.map((bar) => bar[2]))];
      bars("pauses", data.pauses, names.map((name) => ({
        color: triggerColor(name), values: data.pauses.bars.map((bar) => (bar[2] === name ? bar[1] : null)),
      })), (bar) => `Snapshot ${bar[0]} (${bar[2]})\n${data.pauses.y}: ${number.format(bar[1])}`);
    }
    if (data.sizes) {
      bars("sizes", data.sizes, [
        { color: color("memory"), values: data.sizes.bars.map((bar) => bar[1]) },
        { color: color("line"), values: data.sizes.bars.map((bar) => bar[2]) },
      ], (bar) => `Snapshot ${bar[0]}, ${data.sizes.y}\nMemory: ${number.format(bar[1])}\nAdded: ${bar[2] === null ? "not known" : number.format(bar[2])}`);
    }
  }

  const button = document.getElementById("theme");
  const told = () => { button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { chosen = root.dataset.theme === "dark" ? "light" : "dark"; draw(); told(); });
  dark.addEventListener("change", () => { draw(); told(); });
  select?.addEventListener("change", drawMetric);
  addEventListener("beforeprint", () => {
    printing = true;
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    draw();
  });
  addEventListener("afterprint", () => { printing = false; draw(); });
  draw();
  told();
  const watch = new ResizeObserver((entries) => entries.forEach((entry) => entry.target.fit?.()));
  document.querySelectorAll(".chart").forEach((element) => watch.observe(element));
})();
