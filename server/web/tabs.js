// The views of the page, one at a time: Feed, Chart and, where there is no room beside them, Publish.
// The keyboard follows the ARIA pattern for tabs: arrows, Home and End move and choose.

export class Tabs {
  #tabs;
  #panels;
  #onView;
  /** The view that is open: "feed", "chart" or "more". */
  view = "feed";
  /** Whether the user has chosen a view; the page no longer chooses then. */
  isChosen = false;

  /**
   * @param {Record<string, [HTMLElement, HTMLElement | null]>} views each view's tab, and its panel if it is hidden
   *   while another is open
   * @param {(view: string) => void} onView
   */
  constructor(views, onView) {
    this.#tabs = Object.fromEntries(Object.entries(views).map(([view, [tab]]) => [view, tab]));
    this.#panels = Object.fromEntries(Object.entries(views).map(([view, [, panel]]) => [view, panel]));
    this.#onView = onView;
    for (const [view, tab] of Object.entries(this.#tabs)) {
      tab.addEventListener("click", () => this.#choose(view));
      tab.addEventListener("keydown", (event) => this.#steer(event));
    }
    // A view whose tab goes away with a wider window cannot stay open.
    addEventListener("resize", () => this.#isReachable(this.view) || this.show("feed"));
  }

  show(view) {
    this.view = view;
    for (const [name, tab] of Object.entries(this.#tabs)) {
      tab.setAttribute("aria-selected", String(name === view));
      tab.tabIndex = name === view ? 0 : -1;
      if (this.#panels[name]) this.#panels[name].hidden = name !== view;
    }
    document.body.dataset.view = view;
    this.#onView(view);
  }

  #choose(view) {
    this.isChosen = true;
    this.show(view);
  }

  #steer(event) {
    const views = Object.keys(this.#tabs).filter((view) => this.#isReachable(view));
    const here = views.indexOf(this.view);
    const targets = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: -1 };
    if (!(event.key in targets)) return;
    event.preventDefault();
    const view = views.at(targets[event.key] % views.length);
    this.#choose(view);
    this.#tabs[view].focus();
  }

  #isReachable(view) {
    return this.#tabs[view].offsetParent !== null;
  }
}
