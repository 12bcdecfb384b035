/* A pad to draw on with pointer or finger; the drawing becomes a picture of the message. */

import { find } from './dom.js';

const INK = '#111111';

/** The drawing as a part, or null where nothing was drawn. */
export function sketch() {
  const dialog = find('sketch');
  const canvas = find('pad');
  const pen = canvas.getContext('2d');
  let drawn = false;
  const clear = () => { pen.fillStyle = '#ffffff'; pen.fillRect(0, 0, canvas.width, canvas.height); drawn = false; };
  clear();
  Object.assign(pen, { lineWidth: 14, lineCap: 'round', lineJoin: 'round', strokeStyle: INK });
  const at = ({ offsetX, offsetY }) => [offsetX * canvas.width / canvas.clientWidth, offsetY * canvas.height / canvas.clientHeight];
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...at(event));
    pen.lineTo(...at(event));
    pen.stroke();
    drawn = true;
  };
  canvas.onpointermove = (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    pen.lineTo(...at(event));
    pen.stroke();
  };
  find('sketch-clear').onclick = clear;
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.returnValue !== 'use' || !drawn) resolve(null);
      else canvas.toBlob((blob) => resolve({ kind: 'image', blob, name: 'drawing.png' }));
    };
  });
}
