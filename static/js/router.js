// The address after the "#" names the view, so that one static file serves them all.

export class Router {
  #paths;
  #onRoute;

  // Each of `views` has `paths`; a path's ":word" takes one segment. `onRoute({view, parameters})`; null for no view's.
  constructor(views, onRoute) {
    this.#paths = views.flatMap((view) => view.paths.map((path) => [path.split("/").filter(Boolean), view]));
    this.#onRoute = onRoute;
    addEventListener("hashchange", () => this.go());
  }

  go() {
    this.#onRoute(this.match(location.hash));
  }

  match(hash) {
    const segments = hash.replace(/^#/, "").split("/").filter(Boolean);
    for (const [path, view] of this.#paths) {
      const parameters = fit(path, segments);
      if (parameters !== null) return { view, parameters };
    }
    return null;
  }
}

function fit(path, segments) {
  if (path.length !== segments.length) return null;
  const parameters = {};
  for (const [index, part] of path.entries()) {
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

export function instanceAddress(id, panel = "console") {
  return `#/instances/${encodeURIComponent(id)}/${panel}`;
}
