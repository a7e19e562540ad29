"""The replies of a student's folder in torch, for machines without llama.cpp and for students that GGUF cannot hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from core.errors import UsageError
from core.thinking import THINK_OPENING
from students.chat_encoding import find_pad_id, find_stop_ids
from students.known_architectures import FROM_FOLDER, choose_attention


class StudentTextGenerator:
    """A loaded student that writes replies."""

    def __init__(self, folder: Path) -> None:
        """Load the student. Raises UsageError if `transformers` cannot load it."""
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **FROM_FOLDER)
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder}: transformers cannot load it: {str(error).split(chr(10), 1)[0]}") from None
        choose_attention(model)
        model.train(False)
        self._model: Any = model

    def generate_reply(
        self, messages: Sequence[Mapping[str, str]], temperature: float, top_p: float, max_tokens: int
    ) -> str:
        """The next assistant turn with its thinking in tags; at temperature 0 always the most likely token."""
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_tokens, eos_token_id=find_stop_ids(self._tokenizer),
            pad_token_id=find_pad_id(self._tokenizer), **sampling,
        )  # fmt: skip
        prompt: Any = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        self._model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            output = self._model.generate(**prompt, generation_config=settings)
        asked = prompt["input_ids"].shape[1]
        reply = str(self._tokenizer.decode(output[0, asked:], skip_special_tokens=True)).strip()
        # Some chat templates open the thinking themselves.
        opened = str(self._tokenizer.decode(output[0, :asked])).rstrip().endswith(THINK_OPENING)
        return f"{THINK_OPENING}\n{reply}" if opened else reply
