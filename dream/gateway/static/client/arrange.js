// The own order of a dream's pictures: by position, then by id. A move changes as few positions as it can.

/** Whether a picture stands before another one in the own order. */
export const isBefore = (one, other) =>
  one.position < other.position || (one.position === other.position && one.id < other.id);

/**
 * The changes that put some pictures before another one.
 * @param {{id: number, position: number}[]} pictures in the own order
 * @param {Set<number>} moved the ids of those that move; they keep their order
 * @param {number} before the index of the picture behind them; the number of pictures for the end
 * @returns {{changes: {id: number, position: number}[], isOpen: boolean}} `changes` begin at the end of the list, so that
 *   a part of them leaves no wrong order; `isOpen`: they reach the last picture, so one behind it may have to move too
 */
export function rearranged(pictures, moved, before) {
  const isMoved = ({ id }) => moved.has(id);
  const head = pictures.slice(0, before).filter((each) => !isMoved(each));
  const tail = pictures.slice(before).filter((each) => !isMoved(each));
  const changes = [];
  const start = { id: -1, position: Math.max(0, (tail[0]?.position ?? 0) - moved.size) };
  let last = head.at(-1);
  const follow = (picture) => {
    const { id, position: behind } = last ?? start;
    const position = behind + (picture.id > id ? 0 : 1);
    if (position !== picture.position) changes.unshift({ id: picture.id, position });
    last = { id: picture.id, position };
  };
  const fits = (picture) => (!last || isBefore(last, picture)) && !(tail[0] && isBefore(tail[0], picture));
  for (const picture of pictures.filter(isMoved)) {
    if (fits(picture)) last = picture;
    else follow(picture);
  }
  const settled = tail.findIndex((picture) => isBefore(last ?? start, picture) || void follow(picture));
  return { changes, isOpen: settled < 0 };
}
