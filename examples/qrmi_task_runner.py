"""QRMI's task_runner, which does not know of local QPUs by itself (0.26.4): python qrmi_task_runner.py NAME INPUT [OUTPUT]"""

from qrmi import ResourceType
from qrmi.tools.task_runner.main import App, run

App.RESOURCE_TYPE_MAP.setdefault("pasqal-local", ResourceType.PasqalLocal)
run()
