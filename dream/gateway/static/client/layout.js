// The layout of a gallery: justified rows, and which tile is where. Pure functions, without a document.

/**
 * @typedef {{x: number, y: number, width: number, height: number, row: number}} Box
 * @typedef {{y: number, height: number, first: number, end: number}} Row `end` is the index behind the last tile
 * @typedef {{boxes: Box[], rows: Row[], width: number, height: number, gap: number}} Layout
 */

/**
 * Put tiles into rows that fill the width; the last row may stay short.
 * @param {number[]} ratios the width of each tile divided by its height
 * @param {number} width of a row, in pixels
 * @param {number} wanted height of a row; rows come close to it
 * @param {number} gap between tiles, in pixels
 * @returns {Layout}
 */
export function justified(ratios, width, wanted, gap) {
  const layout = { boxes: [], rows: [], width, height: 0, gap };
  let first = 0;
  let sum = 0;
  const filling = (ratio, count) => (width - gap * (count - 1)) / ratio;
  const close = (end, height) => {
    addRow(layout, ratios, first, end, height);
    first = end;
    sum = 0;
  };
  ratios.forEach((ratio, index) => {
    const [lower, higher] = [filling(sum + ratio, index - first + 1), filling(sum, index - first)];
    if (index > first && lower < wanted && higher / wanted < wanted / lower) close(index, higher);
    sum += ratio;
    const height = filling(sum, index - first + 1);
    if (height <= wanted) close(index + 1, height);
  });
  if (first < ratios.length) close(ratios.length, wanted);
  return layout;
}

function addRow(layout, ratios, first, end, exact) {
  const { boxes, rows, width, gap } = layout;
  const height = Math.round(exact);
  const y = layout.height ? layout.height + gap : 0;
  let x = 0;
  for (let index = first; index < end; index++) {
    const right = x + ratios[index] * exact;
    const left = Math.round(x);
    boxes.push({ x: left, y, width: Math.min(width, Math.round(right)) - left, height, row: rows.length });
    x = right + gap;
  }
  rows.push({ y, height, first, end });
  layout.height = y + height;
}

/** The index of the row at a height, or of the nearest one; -1 without rows. */
function rowAt({ rows }, y) {
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle].y <= y) low = middle;
    else high = middle - 1;
  }
  return Math.min(low, rows.length - 1);
}

/** The tiles between two heights, as the indices of the first one and of the one behind the last. */
export function between(layout, top, bottom) {
  if (!layout.rows.length) return [0, 0];
  return [layout.rows[rowAt(layout, top)].first, layout.rows[rowAt(layout, bottom)].end];
}

/** The tile in the row above (`by` -1) or below (`by` 1) that is nearest to the middle of this one. */
export function beside({ boxes, rows }, index, by) {
  const row = rows[boxes[index].row + by];
  if (!row) return index;
  const middle = (box) => box.x + box.width / 2;
  const distance = (each) => Math.abs(middle(boxes[each]) - middle(boxes[index]));
  let best = row.first;
  for (let each = row.first; each < row.end; each++) if (distance(each) < distance(best)) best = each;
  return best;
}

/**
 * The gap between tiles that is nearest to a point.
 * @returns {{before: number, x: number, y: number, height: number}} the index of the tile behind it, and its place
 */
export function gapAt(layout, x, y) {
  const { y: top, height, first, end } = layout.rows[rowAt(layout, y)];
  let before = first;
  while (before < end && layout.boxes[before].x + layout.boxes[before].width / 2 < x) before++;
  return { before, x: gapX(layout, before, before === end), y: top, height };
}

/** The gap before a tile, or at the end. */
export function gapBefore(layout, before) {
  const isEnd = before === layout.boxes.length;
  const { y, height } = layout.boxes[isEnd ? before - 1 : before];
  return { before, x: gapX(layout, before, isEnd), y, height };
}

function gapX({ boxes, gap }, before, isBehind) {
  return isBehind ? boxes[before - 1].x + boxes[before - 1].width + gap / 2 : boxes[before].x - gap / 2;
}
