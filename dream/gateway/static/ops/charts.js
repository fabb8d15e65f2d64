// Small charts in SVG: bars by minute, and a line over time. Each has a text for screen readers.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 84];

function draw(name, attributes, ...children) {
  const drawn = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) drawn.setAttribute(key, value);
  drawn.append(...children);
  return drawn;
}

function frame(kind, label, ...children) {
  const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: `chart ${kind}`, role: "img", "aria-label": label };
  const ground = draw("path", { d: `M0 ${HEIGHT - 0.5}H${WIDTH}`, class: "ground" });
  return draw("svg", attributes, ground, ...children);
}

/**
 * A bar for each value; the newest is at the right.
 * @param {(number | null)[]} values null: not known
 * @param {{kind: string, label: string, titles: string[]}} about
 */
export function bars(values, { kind, label, titles }) {
  const most = Math.max(1, ...values);
  const width = WIDTH / values.length;
  const drawn = values.map((value, at) => {
    const height = value ? Math.max(3, (value / most) * (HEIGHT - 4)) : 0;
    const bar = draw("rect", {
      x: (at * width + width * 0.12).toFixed(2),
      y: (HEIGHT - height).toFixed(2),
      width: (width * 0.76).toFixed(2),
      height: height.toFixed(2),
      class: at === values.length - 1 ? "bar open" : "bar",
    });
    const title = draw("title", {});
    title.textContent = titles[at];
    // The whole column shows the title, so that a small bar is found.
    return draw("g", {}, draw("rect", { x: (at * width).toFixed(2), y: 0, width: width.toFixed(2), height: HEIGHT, class: value === null ? "gap" : "column" }), bar, title);
  });
  return frame(kind, label, ...drawn);
}

/**
 * A line through points (time, value); the newest is at the right.
 * @param {[number, number][]} points
 * @param {{kind: string, label: string, least: number}} about the time axis is at least this long
 */
export function line(points, { kind, label, least }) {
  if (!points.length) return frame(kind, label);
  const until = points.at(-1)[0];
  const long = Math.max(least, until - points[0][0]);
  const most = Math.max(1, ...points.map(([, value]) => value));
  const place = ([at, value]) => [WIDTH - ((until - at) / long) * WIDTH, HEIGHT - 1 - (value / most) * (HEIGHT - 5)];
  const path = points.map((point, at) => `${at ? "L" : "M"}${place(point).map((each) => each.toFixed(2)).join(" ")}`).join("");
  const [first] = place(points[0]);
  return frame(
    kind,
    label,
    draw("path", { d: `${path}V${HEIGHT}H${first.toFixed(2)}Z`, class: "area" }),
    draw("path", { d: path, class: "line", "vector-effect": "non-scaling-stroke" }),
  );
}

/** The value below which this share of a histogram's durations lies, by even spread within a bucket; null if empty. */
export function quantile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [below, counted] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= share * total) {
      if (bound === null) return below; // longer than the last bound
      return below + (bound - below) * (count > counted ? (share * total - counted) / (count - counted) : 1);
    }
    [below, counted] = [bound ?? below, count];
  }
  return below;
}
