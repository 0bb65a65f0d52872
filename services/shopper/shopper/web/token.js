"use strict";

// Where the shopper asks for a token: the page asks for it once, and keeps it as long as its tab is open.
const TOKEN = "caravan-token";

function withToken(options) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } } : options;
}

async function fetchWithToken(path, options = {}) {
  const shown = sessionStorage.getItem(TOKEN);
  const response = await fetch(path, withToken(options));
  if (response.status !== 401) return response;
  // Another request may have asked meanwhile; its answer serves this one too.
  if (sessionStorage.getItem(TOKEN) === shown) {
    const token = window.prompt(shown ? "This token is not known. Another one?" : "A token is needed:");
    if (!token || !token.trim()) return response;
    sessionStorage.setItem(TOKEN, token.trim());
  }
  return fetch(path, withToken(options));
}
