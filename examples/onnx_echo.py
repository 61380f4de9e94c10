"""Echo a stream on onnxruntime and numpy alone.

echospan export runs/variable -o exported
echo abacaba | python examples/onnx_echo.py exported 3
"""

import json
import sys

import numpy as np
import onnxruntime

folder, delay = sys.argv[1], int(sys.argv[2])
session = onnxruntime.InferenceSession(f"{folder}/echo_step.onnx")
told = json.loads(session.get_modelmeta().custom_metadata_map["echospan"])
marks = "·" + told["alphabet"]
state = {
    s["input"]: np.zeros([1 if n == "batch" else n for n in s["shape"]], "float32")
    for s in told["states"]
}
while character := sys.stdin.read(1):
    if character in marks[1:]:
        read = {"symbols": np.array([marks.index(character)])}
        logits, *new = session.run(None, read | state)
        state = dict(zip(state, new, strict=True))
        character = marks[logits[0, delay].argmax()]
    print(character, end="", flush=True)
