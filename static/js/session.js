// Who is signed in. The access token lives in memory alone. The refresh token does too, and is put into sessionStorage
// only while the page is away (reloading, hidden): a page in use has nothing in any storage, and a duplicated tab does
// not inherit a token that two would then use, which the server takes for theft.

import { ApiError, request } from "./api.js";

const KEY = "controlplane.refresh";
const AHEAD_SECONDS = 60;
const RETRY_MILLISECONDS = 5000;

export class Session {
  #access = null;
  #expiresAt = 0;
  #refresh = null;
  #refreshing = null;
  #timer = 0;
  #listeners = new Set();

  user = null;

  constructor() {
    addEventListener("pagehide", () => this.#put());
    addEventListener("pageshow", () => this.#take());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#put();
      else this.#take();
    });
  }

  get isSignedIn() {
    return this.user !== null;
  }

  // Called with a sentence (or null) whenever somebody signs in or out.
  onChange(listener) {
    this.#listeners.add(listener);
  }

  // After a reload: true when somebody is signed in again. Raises ApiError when the control plane cannot be asked.
  async resume() {
    this.#take();
    if (this.#refresh === null) return false;
    try {
      await this.#renew();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return false;
      throw error;
    }
    return true;
  }

  async signIn(email, password) {
    const answer = await request("POST", "/api/auth/login", { body: { email, password } });
    this.#hold(answer);
    this.#tell(null);
  }

  // Here at once, and then at the control plane, where it ends the other uses of this session too. Raises ApiError where
  // that could not be told.
  async signOut() {
    const [access, refreshToken, isFresh] = [this.#access, this.#refresh, this.#isFresh];
    this.#forget(null);
    try {
      const token = isFresh ? access : (await request("POST", "/api/auth/refresh", { body: { refreshToken } })).accessToken;
      await request("POST", "/api/auth/logout", { token });
    } catch (error) {
      if (error.status !== 401) throw error; // 401: it was over already
    }
  }

  // What the control plane has ended already, with a sentence for whoever signs in next.
  end(sentence) {
    this.#clear();
    this.#tell(sentence);
  }

  // An access token that is good for a while. Raises ApiError.
  async token() {
    if (!this.#isFresh) await this.#renew();
    return this.#access;
  }

  // A token other than one that was refused.
  async tokenAfter(refused) {
    if (this.#access === refused) await this.#renew();
    return this.#access;
  }

  get #isFresh() {
    return this.#access !== null && Date.now() < this.#expiresAt - 5000;
  }

  #renew() {
    this.#refreshing ??= this.#exchange().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #exchange() {
    if (this.#refresh === null) throw new ApiError(401, { error: "Sign in first." }, null);
    const wasSignedIn = this.isSignedIn;
    const used = this.#refresh;
    let answer;
    try {
      answer = await request("POST", "/api/auth/refresh", { body: { refreshToken: used } });
      if (this.#refresh !== used) throw new ApiError(401, { error: "Sign in first." }, null);
    } catch (error) {
      if (this.#refresh !== used) throw error; // signed out meanwhile
      if (error.status === 401) this.#forget(wasSignedIn ? "Your session has ended. Sign in again to go on." : null);
      else this.#renewIn(RETRY_MILLISECONDS);
      throw error;
    }
    this.#hold(answer);
    if (!wasSignedIn) this.#tell(null);
  }

  #hold(answer) {
    this.#access = answer.accessToken;
    this.#refresh = answer.refreshToken;
    this.#expiresAt = Date.now() + answer.expiresInSeconds * 1000;
    this.user = answer.user;
    this.#renewIn(Math.max(answer.expiresInSeconds / 2, answer.expiresInSeconds - AHEAD_SECONDS) * 1000);
    if (document.visibilityState === "hidden") this.#put();
  }

  #renewIn(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#renew().catch(() => null), milliseconds);
  }

  #forget(sentence) {
    const wasSignedIn = this.isSignedIn;
    this.#clear();
    if (wasSignedIn) this.#tell(sentence);
  }

  #clear() {
    clearTimeout(this.#timer);
    this.#access = this.#refresh = this.user = null;
    sessionStorage.removeItem(KEY);
  }

  #put() {
    if (this.#refresh !== null) sessionStorage.setItem(KEY, this.#refresh);
  }

  #take() {
    this.#refresh ??= sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
  }

  #tell(sentence) {
    for (const listener of this.#listeners) listener(sentence);
  }
}
