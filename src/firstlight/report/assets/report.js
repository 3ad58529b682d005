"use strict";
(() => {
  const root = document.documentElement;
  const ON_LIGHT = ["#0b72b9", "#d55e00", "#00805e", "#b8578f", "#96700a", "#2f93cf", "#7a5cc9", "#767676", "#c2334d", "#4f7f22"];
  const ON_DARK = ["#5aaef0", "#ff9b50", "#3ecfa0", "#e8a0c8", "#e6c14a", "#9ad4f5", "#b6a0f0", "#b0b0b0", "#f08095", "#a5d36f"];
  const MARKS = { skipped: "#d55e00", overflow: "#b8860b", rolled_back: "#c2334d", diverged: "#c2334d", hung: "#c2334d",
    save_failed: "#c2334d", spike: "#cc79a7", resumed: "#7a5cc9", stopped: "#7a5cc9", finished: "#009e73", checkpoint: "#8c8c8c" };
  const X_NAMES = { step: ["step", "步"], tokens: ["tokens", "词元"], time: ["time", "时间"], flops: ["FLOPs", "FLOPs"] };
  const state = { x: "step", logX: false, smooth: 0.6, zoom: null, logY: {}, hidden: {}, variant: {}, marks: {} };
  let data, charts = [], syncing = false;

  const chinese = () => root.lang === "zh";
  const pick = pair => pair[chinese() ? 1 : 0];
  const find = (selector, place = document) => place.querySelector(selector);
  const all = (selector, place = document) => [...place.querySelectorAll(selector)];
  const kept = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem("firstlight-" + key);
      localStorage.setItem("firstlight-" + key, value);
    } catch { /* pages from files may have no storage */ }
    return null;
  };
  const css = name => getComputedStyle(root).getPropertyValue(name).trim();

  // ---- numbers ----
  function amount(value, digits = 4) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
    for (const [limit, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]])
      if (size >= limit) return +(value / (unit === "k" ? 1e3 : limit)).toPrecision(digits) + unit;
    return String(+value.toPrecision(digits));
  }
  function duration(seconds) {
    if (seconds < 60) return +seconds.toPrecision(3) + "s";
    const minutes = Math.round(seconds / 60);
    if (minutes < 60) return minutes + "m";
    const hours = seconds / 3600;
    return hours < 48 ? +hours.toPrecision(3) + "h" : +(hours / 24).toPrecision(3) + "d";
  }
  const bytes = value => {
    for (const [limit, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
      if (Math.abs(value) >= limit) return +(value / limit).toPrecision(4) + " " + unit;
    return value + " B";
  };
  const WRITTEN = { bytes, share: value => +(100 * value).toPrecision(4) + "%" };
  const written = (chart, value) => value === null ? "–" : (WRITTEN[chart.unit] || amount)(value);
  const writtenX = value => state.x === "time" ? duration(value)
    : state.x === "flops" ? value.toExponential(2)
    : state.x === "step" && value < 1e6 ? Math.round(value).toLocaleString("en") : amount(value, 6);

  // ---- the horizontal axis ----
  function place(run, steps) {
    const about = data.runs[run];
    if (state.x === "tokens") return steps.map(step => step * about.step_tokens);
    if (state.x === "flops") return steps.map(step => step * about.step_flops);
    if (state.x === "time") {
      const [known, seconds] = about.clock;
      let at = 0;
      return steps.map(step => {
        if (!known.length) return step;
        while (at > 0 && known[at] > step) at--;
        while (at < known.length - 2 && known[at + 1] < step) at++;
        if (known.length === 1) return seconds[0] * step / Math.max(1, known[0]);
        const share = (step - known[at]) / (known[at + 1] - known[at]);
        return Math.max(0, seconds[at] + share * (seconds[at + 1] - seconds[at]));
      });
    }
    return steps.slice();
  }
  function smoothed(values) {
    let mean = 0, weight = 0;
    return values.map(value => {
      mean = state.smooth * mean + (1 - state.smooth) * value;
      weight = state.smooth * weight + (1 - state.smooth);
      return mean / weight;
    });
  }
  function nearest(xs, x) {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= x) low = middle; else high = middle;
    }
    return high >= 0 && Math.abs(xs[high] - x) < Math.abs(xs[low] - x) ? high : low;
  }
  function rising(xs, ys) {  // a logarithmic axis knows nothing at or below 0
    const keep = [];
    for (let i = 0; i < xs.length; i++)
      if (!(state.logX && xs[i] <= 0) && !(keep.length && xs[i] <= xs[keep[keep.length - 1]])) keep.push(i);
    return keep.length === xs.length ? [xs, ys] : [keep.map(i => xs[i]), keep.map(i => ys[i])];
  }

  // ---- a chart ----
  const faded = (colour, share) => colour + Math.round(255 * share).toString(16).padStart(2, "0");
  const mean = series => series.mean || [series.x, series.y];  // of all points, also those that are not drawn
  const colourOf = number => (isDark() ? ON_DARK : ON_LIGHT)[number % ON_LIGHT.length];
  function linesOf(chart) {
    const lines = [];
    const list = chart.variants ? chart.variants[state.variant[chart.id] || Object.keys(chart.variants)[0]] : chart.series;
    list.forEach((series, number) => {
      if (state.hidden[chart.id + "/" + series.name[0]]) return;
      const at = chart.variants ? number : series.run, colour = colourOf(at), dash = Math.floor(at / ON_LIGHT.length);
      const smooth = chart.smooth && state.smooth > 0 && mean(series)[0].length > 2;
      const [xs, ys] = rising(place(series.run, series.x), series.y);
      lines.push({ series, colour, xs, ys, width: smooth ? 1 : 1.6, alpha: smooth ? 0.45 : 1, dots: chart.dots, dash });
      if (smooth) {
        const [mx, my] = rising(place(series.run, mean(series)[0]), smoothed(mean(series)[1]));
        lines.push({ series, colour, xs: mx, ys: my, width: 2, alpha: 1, smooth: true, dash });
      }
    });
    return lines;
  }
  function marksOf() {
    const shown = [];
    data.runs.forEach((about, run) => {
      if (!about.marks.length) return;
      const xs = place(run, about.marks.map(mark => mark.step));
      about.marks.forEach((mark, i) => { if (state.marks[mark.kind] !== false) shown.push({ ...mark, x: xs[i], run }); });
    });
    return shown;
  }
  function drawMarks(plot) {
    const { ctx, bbox } = plot, drawn = new Set(), seen = [];
    ctx.save();
    ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const mark of plot.marks) {
      const x = Math.round(plot.valToPos(mark.x, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      seen.push({ mark, x: plot.valToPos(mark.x, "x") });
      if (drawn.has(mark.kind + x)) continue;
      drawn.add(mark.kind + x);
      ctx.strokeStyle = faded(MARKS[mark.kind] || "#8c8c8c", mark.kind === "checkpoint" ? 0.35 : 0.8);
      ctx.lineWidth = devicePixelRatio;
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    }
    ctx.restore();
    plot.seen = seen;
  }
  function hover(chart, plot) {
    const { left, top } = plot.cursor, readout = find(".readout", chart.figure), tip = find(".tip", chart.figure);
    if (left === undefined || left < 0) { readout.textContent = ""; tip.hidden = true; return; }
    const x = plot.posToVal(left, "x");
    readout.replaceChildren();
    const first = document.createElement("b");
    first.textContent = pick(X_NAMES[state.x]) + " " + writtenX(x);
    readout.append(first);
    const best = new Map();
    for (const line of plot.lines) if (line.xs.length) best.set(line.series, { ...best.get(line.series), [line.smooth ? "smooth" : "raw"]: line });
    for (const [series, { raw, smooth }] of best) {
      const i = nearest(raw.xs, x);
      const value = written(chart, raw.ys[i]);
      const mean = smooth ? " (" + written(chart, smooth.ys[nearest(smooth.xs, x)]) + ")" : "";
      readout.append(" · " + pick(series.name) + " " + value + mean);
    }
    const near = (plot.seen || []).filter(seen => Math.abs(seen.x - left) < 6).slice(0, 6);
    tip.hidden = !near.length;
    if (near.length) {
      tip.textContent = near.map(seen => (data.runs.length > 1 ? data.runs[seen.mark.run].name + ": " : "") + pick(seen.mark.text)).join(" · ");
      const box = find(".plot", chart.figure);
      const at = Math.min(near[0].x + plot.over.offsetLeft + 8, box.clientWidth - tip.offsetWidth - 2);
      tip.style.transform = `translate(${Math.max(0, at)}px, ${Math.max(0, top)}px)`;
    }
  }
  function draw(chart) {
    const box = find(".plot", chart.figure);
    if (chart.plot) { chart.plot.destroy(); chart.plot = null; }
    const lines = linesOf(chart), logY = state.logY[chart.id] ?? chart.log;
    const tables = lines.map(({ xs, ys }) => [xs, logY ? ys.map(y => y > 0 ? y : null) : ys]);
    const joined = tables.length ? uPlot.join(tables, tables.map(() => [1])) : [[], []];
    const ink = css("--dim"), grid = css("--line");
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const options = {
      width: box.clientWidth, height: box.clientHeight, legend: { show: false },
      cursor: { sync: { key: "firstlight", setSeries: false, scales: ["x", null] }, drag: { x: true, y: false, setScale: false, dist: 5 }, points: { show: false } },
      scales: {
        x: { time: false, distr: state.logX ? 3 : 1, range: (plot, low, high) => range(low, high) },
        y: { distr: logY ? 3 : 1 },
      },
      axes: [
        { ...axis, size: 34, space: 64, values: (plot, ticks) => ticks.map(tick => tick === null ? "" : writtenX(tick)) },
        { ...axis, size: 62, values: (plot, ticks) => ticks.map(tick => tick === null ? "" : written(chart, tick)) },
      ],
      series: [{}, ...(lines.length ? lines.map(line => ({
        stroke: faded(line.colour, line.alpha), width: line.width, spanGaps: true,
        dash: line.dash ? [8, 3 * line.dash] : undefined, points: { show: !!line.dots || line.xs.length < 3, size: 6, fill: line.colour },
      })) : [{}])],
      hooks: {
        draw: [drawMarks],
        setCursor: [plot => hover(chart, plot)],
        setSelect: [plot => {
          const { left, width } = plot.select;
          if (width > 4) { zoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x")); }
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
      },
    };
    chart.plot = new uPlot(options, null, box);
    Object.assign(chart.plot, { lines, marks: marksOf(), drawnFor: chart.id });
    chart.plot.setData(joined);
    chart.plot.over.addEventListener("dblclick", () => zoom());
  }
  function whole() {
    let low = Infinity, high = -Infinity;
    for (const chart of charts) for (const line of chart.plot ? chart.plot.lines : []) if (line.xs.length) {
      low = Math.min(low, line.xs[0]); high = Math.max(high, line.xs[line.xs.length - 1]);
    }
    return low < high ? [low, high] : low === high ? [low * 0.9 - (low ? 0 : 1), high * 1.1 + (low ? 0 : 1)] : [state.logX ? 1 : 0, 10];
  }
  function range(low, high) {
    if (state.zoom) return state.zoom;
    if (low === null || high === null) return [state.logX ? 1 : 0, 10];
    return low === high ? [low * 0.9 - (low ? 0 : 1), high * 1.1 + (low ? 0 : 1)] : [low, high];
  }
  function zoom(low, high) {
    state.zoom = low === undefined || !(low < high) || (state.logX && low <= 0) ? null : [low, high];
    for (const { plot } of charts) if (plot) plot.setData(plot.data, true);
  }
  function move(part) {
    const [low, high] = state.zoom || whole();
    const change = state.logX ? Math.log : value => value, back = state.logX ? Math.exp : value => value;
    const a = change(Math.max(low, state.logX ? 1e-9 : -Infinity)), b = change(high), width = b - a;
    const [from, to] = { in: [a + width / 4, b - width / 4], out: [a - width / 2, b + width / 2],
      left: [a - width / 4, b - width / 4], right: [a + width / 4, b + width / 4] }[part];
    const [least, most] = whole();
    if (part === "out" && back(from) <= least && back(to) >= most) zoom(); else zoom(back(from), back(to));
  }
  let waiting = [];
  function redraw() {  // what is seen first, the rest when the browser has time
    waiting = charts.slice();
    const next = () => {
      const chart = waiting.shift();
      if (!chart) { performance.mark("drawn"); root.dataset.drawn = "yes"; return; }
      draw(chart);
      (waiting.length > charts.length - 2 ? fn => fn() : fn => setTimeout(fn))(next);
    };
    delete root.dataset.drawn;
    next();
  }

  // ---- controls ----
  function keysOf(chart) {
    const list = find(".keys", chart.figure);
    if (!list) return;
    const series = chart.variants ? chart.variants[state.variant[chart.id] || Object.keys(chart.variants)[0]] : chart.series;
    list.replaceChildren(...(series.length < 2 ? [] : series).map((one, number) => {
      const item = document.createElement("li"), label = document.createElement("label"), box = document.createElement("input");
      const swatch = document.createElement("i"), key = chart.id + "/" + one.name[0];
      box.type = "checkbox"; box.checked = !state.hidden[key];
      box.addEventListener("change", () => { state.hidden[key] = !box.checked; draw(chart); });
      swatch.style.background = colourOf(chart.variants ? number : one.run);
      label.append(box, swatch, pick(one.name));
      item.append(label);
      return item;
    }));
  }
  function labels() {
    all("[data-label-en]").forEach(element => element.setAttribute("aria-label", element.dataset[chinese() ? "labelZh" : "labelEn"]));
    all("option[data-en]").forEach(option => { option.textContent = option.dataset[chinese() ? "zh" : "en"]; });
    all("[data-language]").forEach(button => button.setAttribute("aria-pressed", button.dataset.language === root.lang));
    all("[data-x]").forEach(button => button.setAttribute("aria-pressed", button.dataset.x === state.x));
    charts.forEach(keysOf);
  }
  function set(key, action) {
    const element = find("[data-control=" + key + "]");
    if (element) action(element);
  }
  function begin() {
    data = JSON.parse(find("#data").textContent);
    charts.forEach(({ plot }) => plot && plot.destroy());
    charts = data.charts.map(chart => ({ ...chart, figure: document.getElementById("chart-" + chart.id) }));
    for (const chart of charts) {
      const { figure } = chart, box = find(".plot", figure);
      const log = find("[data-log]", figure);
      log.checked = state.logY[chart.id] ?? chart.log;
      log.addEventListener("change", () => { state.logY[chart.id] = log.checked; draw(chart); });
      const variant = find("[data-variant]", figure);
      if (variant) {
        if (state.variant[chart.id]) variant.value = state.variant[chart.id];
        variant.addEventListener("change", () => { state.variant[chart.id] = variant.value; keysOf(chart); draw(chart); });
      }
      box.addEventListener("keydown", event => keyed(event, chart));
    }
    all("[data-x]").forEach(button => button.addEventListener("click", () => { state.x = button.dataset.x; state.zoom = null; labels(); redraw(); }));
    all("[data-move]").forEach(button => button.addEventListener("click", () => move(button.dataset.move)));
    all("[data-mark]").forEach(box => {
      box.checked = state.marks[box.dataset.mark] ?? box.checked;
      state.marks[box.dataset.mark] = box.checked;
      box.addEventListener("change", () => { state.marks[box.dataset.mark] = box.checked; for (const { plot } of charts) if (plot) { plot.marks = marksOf(); plot.redraw(); } });
    });
    set("whole", button => button.addEventListener("click", () => zoom()));
    set("logx", box => { box.checked = state.logX; box.addEventListener("change", () => { state.logX = box.checked; state.zoom = null; redraw(); }); });
    set("smooth", slider => { slider.value = state.smooth; slider.addEventListener("input", () => { state.smooth = +slider.value; charts.filter(chart => chart.smooth && chart.plot).forEach(draw); }); });
    labels();
    redraw();
  }
  function keyed(event, chart) {
    const { plot } = chart, part = { "+": "in", "=": "in", "-": "out" }[event.key];
    if (part) move(part);
    else if (event.key === "0" || event.key === "Escape") zoom();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const width = plot.over.clientWidth, step = event.shiftKey ? width / 10 : width / 100;
      const before = plot.cursor.left >= 0 ? plot.cursor.left : width / 2;
      plot.setCursor({ left: Math.min(width, Math.max(0, before + (event.key === "ArrowLeft" ? -step : step))), top: 10 });
    } else return;
    event.preventDefault();
  }
  function theme(name) {
    if (name) root.dataset.theme = name; else delete root.dataset.theme;
    charts.forEach(chart => { keysOf(chart); if (chart.plot) draw(chart); });
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  all("[data-language]").forEach(button => button.addEventListener("click", () => { root.lang = button.dataset.language; kept("language", root.lang); labels(); }));
  set("theme", button => button.addEventListener("click", () => { const name = isDark() ? "light" : "dark"; kept("theme", name); theme(name); }));
  dark.addEventListener("change", () => theme(root.dataset.theme));
  if (["en", "zh"].includes(kept("language"))) root.lang = kept("language");
  if (["light", "dark"].includes(kept("theme"))) root.dataset.theme = kept("theme");
  let wait;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(() => {
    for (const { plot, figure } of charts) if (plot) { const box = find(".plot", figure); plot.setSize({ width: box.clientWidth, height: box.clientHeight }); }
  }, 100); });
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; theme("light"); });
  addEventListener("afterprint", () => theme(before));
  begin();

  // ---- a page that is served follows its run ----
  const every = +(find("main").dataset.refresh || 0);
  let stamp = find("main").dataset.stamp;
  async function follow() {
    try {
      const answer = await fetch("/stamp", { cache: "no-store" });
      const now = answer.ok ? await answer.text() : stamp;
      if (now !== stamp) {
        const page = new DOMParser().parseFromString(await (await fetch("/", { cache: "no-store" })).text(), "text/html");
        const open = new Set(all("details[open]").map(element => element.id));
        find("main").replaceWith(document.adoptNode(find("main", page)));
        find("#data").replaceWith(document.adoptNode(find("#data", page)));
        all("details").forEach(element => { element.open = open.has(element.id); });
        stamp = find("main").dataset.stamp;
        begin();
      }
      set("state", element => { element.hidden = true; });
    } catch { set("state", element => { element.hidden = false; }); }
    setTimeout(follow, 1000 * every);
  }
  if (every) setTimeout(follow, 1000 * every);
})();
