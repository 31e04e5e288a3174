// Numbers and times for people. Pure.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${UNITS[unit]}`;
}

// "just now", "12 s", "4 min", "3 h", "5 days": one unit, as one would say it.
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  if (hours < 36) return `${hours} h`;
  return `${Math.round(hours / 24)} days`;
}

export function ago(milliseconds) {
  return milliseconds < 2000 ? "just now" : `${duration(milliseconds)} ago`;
}

// What passes on a stopwatch: 0:07, 12:40, 1:02:03.
export function stopwatch(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const [hours, minutes, rest] = parts;
  const end = `${hours ? String(minutes).padStart(2, "0") : minutes}:${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${end}` : end;
}

export function moment(text) {
  return text === null || text === undefined
    ? "–"
    : new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

// As short as it is clear: without the date on the same day, without the year in the same year.
export function shortMoment(text, now = new Date()) {
  if (text === null || text === undefined) return "–";
  const at = new Date(text);
  const time = { hour: "numeric", minute: "2-digit" };
  if (at.toDateString() === now.toDateString()) return `Today, ${at.toLocaleTimeString(undefined, time)}`;
  const day = { day: "numeric", month: "short" };
  if (at.getFullYear() === now.getFullYear()) return at.toLocaleString(undefined, { ...day, ...time });
  return at.toLocaleDateString(undefined, { ...day, year: "numeric" });
}

export function percent(value) {
  return value === undefined || value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

export function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}
