"""Imported by the process that workers fork from: the modules that their tasks need, and tables that they would all compute."""

import rensa  # noqa: F401

import pandallm.data.clean_shard
import pandallm.data.write_shard  # noqa: F401
from pandallm.data.fold import fold_batch
from pandallm.data.memory import keep_freed_memory
from pandallm.data.steps.words import class_table

keep_freed_memory()
fold_batch(["a"])
class_table()
