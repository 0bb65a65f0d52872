// Many wishes, one request at a time, and the last wish wins.

/**
 * Return `want(value)`: after a pause without a newer wish `ask(value)` is awaited, and `answered(answer, error)`
 * called, unless another wish came meanwhile; that one is asked next. `want(null)` wishes for nothing.
 */
export function latest(ask, answered, pauseMs) {
  let wish = null;
  let asking = false;
  let timer = 0;

  async function run() {
    if (asking || wish === null) return;
    const mine = wish;
    let outcome;
    asking = true;
    try {
      outcome = [await ask(mine.value), null];
    } catch (error) {
      outcome = [null, error];
    }
    asking = false;
    if (wish !== mine) return due();
    wish = null;
    answered(...outcome);
  }

  // A newer wish's pause may be over or not: its own timer starts it then.
  const due = () => wish?.ready && run();

  return (value) => {
    clearTimeout(timer);
    wish = value === null ? null : { value, ready: false };
    if (!wish) return;
    const mine = wish;
    timer = setTimeout(() => {
      mine.ready = true;
      run();
    }, pauseMs);
  };
}
