// Off the main thread: takes what the microphone gives, mixed down, and hands it on in parts.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.part = new Float32Array(4 * 128);
    this.filled = 0;
  }

  process([channels]) {
    if (!channels.length) return true; // nothing is connected
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.part[this.filled++] = sum / channels.length;
      if (this.filled === this.part.length) {
        this.port.postMessage(this.part);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
