// Only shows that a worker is at work: it counts the requests that pass through it and tells whoever asks.

let seen = 0;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", () => {
  seen += 1;
});
self.addEventListener("message", (event) => event.ports[0]?.postMessage({ seen, scope: self.registration.scope }));
