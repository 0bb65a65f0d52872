// Signing in: the token goes once, a cookie that scripts cannot read comes back.
const form = document.getElementById("login");
const button = form.querySelector("button");
const fault = document.getElementById("fault");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  fault.textContent = await trouble(form.token.value);
  button.disabled = false;
  if (fault.textContent) form.token.select();
  else location.replace(next());
});
button.disabled = false; // before, the browser itself would send the form

/** The page of this app that sent us here; any other address is not followed. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "";
  return /^[a-z]+(\?.*)?$/.test(wanted) ? wanted : "./";
}

/** Try to sign in; tells what went wrong, or nothing. */
async function trouble(token) {
  try {
    const response = await fetch("login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }) });
    if (response.ok) return "";
    if (response.status === 401) return "This token is not known here. Check it for missing letters, or ask your operator for another.";
    return `Caravan answered ${response.status}. Try again in a moment.`;
  } catch {
    return "Caravan does not answer. Is the network there?";
  }
}
