"""Another user's task, by its number."""

import sys

from common import refusal, tell
from qrmi import QRMIService

(qpu,) = QRMIService().resources()
(task,) = sys.argv[1:]
calls = (qpu.task_status, qpu.task_result, qpu.task_logs, qpu.task_stop)
tell(refused=[refusal(lambda call=call: call(task)) for call in calls])
