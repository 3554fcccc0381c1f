// Figures as people read them. Pure. What is not known is a dash, never a zero.

export const NONE = "–";

const digits = (most) => new Intl.NumberFormat("en", { maximumFractionDigits: most });
const [whole, tenths, hundredths] = [digits(0), digits(1), digits(2)];
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const count = (value) => (known(value) ? whole.format(value) : NONE);
export const percent = (value) => (known(value) ? `${whole.format(value)} %` : NONE);
export const celsius = (value) => (known(value) ? `${whole.format(value)} °C` : NONE);

/** Three digits at most, as instruments show. */
export function short(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  return (size >= 100 ? whole : size >= 10 ? tenths : hundredths).format(value);
}

export const tokensPerSecond = (value) => (known(value) ? `${short(value)} tokens/s` : NONE);

/** Sizes as shops and the Hub print them, in powers of ten; memory is given in powers of two by `memory`. */
export function bytes(value) {
  return scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"]);
}

export function memory(value) {
  return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
}

export function hertz(value) {
  return scaled(value, 1000, ["Hz", "kHz", "MHz", "GHz"]);
}

function scaled(value, step, units) {
  if (!known(value)) return NONE;
  let unit = 0;
  while (Math.abs(value) >= step && unit < units.length - 1) [value, unit] = [value / step, unit + 1];
  return `${unit === 0 ? whole.format(value) : short(value)} ${units[unit]}`;
}

export function milliseconds(value) {
  if (!known(value)) return NONE;
  return value < 1000 ? `${whole.format(value)} ms` : `${short(value / 1000)} s`;
}

/** "45 s", "3 min", "2 h 5 min", "3 days". */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 90) return `${whole.format(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} days`;
}

const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** A moment (Unix seconds): its time today, with the day before that. */
export function moment(seconds, nowMs = Date.now()) {
  if (!known(seconds)) return NONE;
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date(nowMs).toDateString();
  return (today ? clockTime : dayAndTime).format(date);
}

export const time = (date) => clockTime.format(date);

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
