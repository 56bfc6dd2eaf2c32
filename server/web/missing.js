// What a channel of the Centrifuge dialect could have and has not, and what a server is started with to have it.

const OPTIONS = {
  history: ["History and recovery", "--history-size 100"],
  presence: ["Who is here", "--presence"],
  joins: ["Joins and leaves", "--join-leave"],
};

/**
 * @param {HTMLElement} section hidden when nothing is missing
 * @param {HTMLElement} list
 * @param {import("./centrifuge.js").Features} features
 */
export function showMissing(section, list, features) {
  const missing = Object.keys(OPTIONS).filter((feature) => !features[feature]);
  section.hidden = missing.length === 0;
  list.replaceChildren(...missing.map((feature) => itemFor(...OPTIONS[feature])));
}

function itemFor(name, option) {
  const item = document.createElement("li");
  const code = document.createElement("code");
  code.textContent = option;
  item.append(name + " ", code);
  return item;
}
