// The address after the "#" names the view, so that one static file serves them all.

export class Router {
  #routes;
  #onRoute;

  // `routes` is a list of [pattern, name]; a pattern's ":word" takes one segment.
  constructor(routes, onRoute) {
    this.#routes = routes.map(([pattern, name]) => [pattern.split("/").filter(Boolean), name]);
    this.#onRoute = onRoute;
    addEventListener("hashchange", () => this.go());
  }

  go() {
    this.#onRoute(this.match(location.hash));
  }

  match(hash) {
    const segments = hash.replace(/^#/, "").split("/").filter(Boolean);
    for (const [pattern, name] of this.#routes) {
      const parameters = fit(pattern, segments);
      if (parameters !== null) return { name, parameters };
    }
    return { name: "unknown", parameters: {} };
  }
}

function fit(pattern, segments) {
  if (pattern.length !== segments.length) return null;
  const parameters = {};
  for (const [index, part] of pattern.entries()) {
    if (part.startsWith(":")) {
      const value = decode(segments[index]);
      if (value === null) return null;
      parameters[part.slice(1)] = value;
    } else if (part !== segments[index]) {
      return null;
    }
  }
  return parameters;
}

function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return null;
  }
}

export function instanceAddress(id, tab = "console") {
  return `#/instances/${encodeURIComponent(id)}/${tab}`;
}
