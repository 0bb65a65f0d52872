// Numbers and times in words.
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });

/** 7.25 is 7.3, 1240 is 1,240, 12400 is 12.4k. */
export function number(value) {
  if (value >= 10_000) return `${(value / 1000).toLocaleString("en", { maximumFractionDigits: 1 })}k`;
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

/** A time of today as 14:03:27, another with its day. */
export function time(iso) {
  const when = new Date(iso);
  return (Date.now() - when < 20 * 3600 * 1000 ? clock : day).format(when);
}

/** The same without seconds: 14:03. */
export const minute = (iso) => time(iso).replace(/:\d\d$/, "");

/** Seconds as they read best: 0.0042 is 4.2 ms. */
export function span(seconds) {
  if (seconds >= 1) return `${number(seconds)} s`;
  return `${(seconds * 1000).toLocaleString("en", { maximumFractionDigits: seconds < 0.01 ? 1 : 0 })} ms`;
}

/** Every digit: 12400 is 12,400. */
export const exact = (value) => value.toLocaleString("en");

export function bytes(size) {
  if (size < 1024) return `${size} B`;
  return size < 1024 ** 2 ? `${number(size / 1024)} kB` : `${number(size / 1024 ** 2)} MB`;
}
