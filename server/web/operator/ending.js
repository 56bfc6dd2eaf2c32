// To disconnect a client: asked once more, with the API key where the server wants one, and said by the server API.

/** The key is kept by this page alone, and forgotten with it. */
export class Ending {
  needsKey = false;
  #parts;
  #client = null;

  /**
   * @param {{dialog: HTMLDialogElement, form: HTMLFormElement, client: HTMLElement, keyLine: HTMLElement,
   *   key: HTMLInputElement, refusal: HTMLElement, cancel: HTMLElement, button: HTMLButtonElement}} parts
   */
  constructor(parts) {
    this.#parts = parts;
    parts.cancel.addEventListener("click", () => parts.dialog.close());
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#end();
    });
  }

  /** @param {{client: string}} entry @param {[string, string][]} facts what the operator sees of the client */
  ask(entry, facts) {
    const { dialog, client, keyLine, refusal, button } = this.#parts;
    this.#client = entry.client;
    client.replaceChildren(...facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
    keyLine.hidden = !this.needsKey;
    refusal.textContent = "";
    button.disabled = false;
    dialog.showModal();
  }

  async #end() {
    const { dialog, key, refusal, button } = this.#parts;
    button.disabled = true;
    refusal.textContent = "";
    const fault = await disconnect(this.#client, this.needsKey ? key.value : "");
    button.disabled = false;
    if (fault === "") dialog.close();
    else refusal.textContent = fault;
  }
}

/** Returns what went wrong, or "". */
async function disconnect(client, key) {
  const headers = { "Content-Type": "application/json", ...(key ? { "X-API-Key": key } : {}) };
  try {
    const answer = await fetch("/api/disconnect", {
      method: "POST", headers, body: JSON.stringify({ client }), signal: AbortSignal.timeout(5000),
    });
    if (answer.status === 401) return "The API key is missing or wrong.";
    if (answer.status === 403) return "The server refuses: the API wants a key (api_key) for this.";
    if (!answer.ok) return `The server answered with ${answer.status}.`;
    const { error } = await answer.json();
    return error ? `The server could not: ${error.message}` : "";
  } catch {
    return "The server does not answer.";
  }
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
