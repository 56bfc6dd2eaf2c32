// Puts an example on the clipboard, and says so on the button that was pressed.

const SHOWN_FOR = 1600;

/** Copy the text of `source`; `button` tells how it went. */
export async function copyText(source, button) {
  const label = button.firstChild;
  button.dataset.label ??= label.textContent;
  label.textContent = (await copied(source)) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (label.textContent = button.dataset.label), SHOWN_FOR);
}

async function copied(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    // Outside a secure context (http on another host) there is no clipboard: select it, and try the old command.
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}
