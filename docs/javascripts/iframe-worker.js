// Search where a page is opened as a file: browsers start no worker there, so the
// worker's script runs in a hidden frame that talks as a worker would.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = data => this.tell(this, data);
      const script = inside.document.createElement("script");
      script.src = url;
      this.loaded = new Promise(resolve => { script.onload = resolve; });
      inside.document.head.append(script);
    }

    postMessage(data) {
      this.loaded.then(() => this.tell(this.frame.contentWindow, data));
    }

    tell(target, data) {
      const message = new MessageEvent("message", { data });
      target.dispatchEvent(message);
      if (target === this && this.onmessage) this.onmessage(message);
    }
  };
}
