// Answers need not come in the order in which they were asked for: an old one must not take the place of a newer one.

/** A function that is called before each question of a kind; what it gives tells whether that is still the last one. */
export function newest() {
  let last = 0;
  return () => {
    const mine = ++last;
    return () => mine === last;
  };
}
