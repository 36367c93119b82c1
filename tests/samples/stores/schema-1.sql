BEGIN TRANSACTION;
CREATE TABLE sequences (task INTEGER PRIMARY KEY, sequence TEXT NOT NULL);
INSERT INTO "sequences" VALUES(3,'{"register": [{"name": "q0", "x": 0.0, "y": 0.0}, {"name": "q1", "x": 6.0, "y": 0.0}], "operations": [], "variables": {}, "device": {"name": "AnalogDevice"}}');
INSERT INTO "sequences" VALUES(4,'{"register": [{"name": "q0", "x": 0.0, "y": 0.0}, {"name": "q1", "x": 6.0, "y": 0.0}], "operations": [], "variables": {}, "device": {"name": "AnalogDevice"}}');
CREATE TABLE sessions (id TEXT PRIMARY KEY, uid INTEGER NOT NULL, job TEXT NOT NULL, acquired INTEGER NOT NULL,
                       open INTEGER NOT NULL, record TEXT NOT NULL);
INSERT INTO "sessions" VALUES('id-3',1001,'0',1800000000000000,0,'{"id":"id-3","uid":1001,"job":"0","host":"node1","acquired":1800000000000000,"expires":1800000612000000,"ended":1800000012000000,"end_reason":"released","tasks":1,"shots":0,"qpu_time":0,"wait_time":0}');
INSERT INTO "sessions" VALUES('id-1',1001,'1',1800000000000000,1,'{"id":"id-1","uid":1001,"job":"1","host":"node1","acquired":1800000000000000,"expires":1800000612000000,"ended":null,"end_reason":"","tasks":2,"shots":100,"qpu_time":1000000,"wait_time":0}');
INSERT INTO "sessions" VALUES('id-2',1002,'2.3',1800000000000000,1,'{"id":"id-2","uid":1002,"job":"2.3","host":"node2","acquired":1800000000000000,"expires":1800000615000000,"ended":null,"end_reason":"","tasks":1,"shots":0,"qpu_time":0,"wait_time":0}');
CREATE TABLE tasks (id INTEGER PRIMARY KEY, session TEXT NOT NULL, uid INTEGER NOT NULL, live INTEGER NOT NULL,
                    record TEXT NOT NULL);
INSERT INTO "tasks" VALUES(1,'id-1',1001,0,'{"id":1,"session":"id-1","uid":1001,"shots":100,"qubits":2,"key":"key-4","submitted":1800000000000000,"status":"completed","started":1800000000000000,"finished":1800000012000000,"shots_done":100,"runs":1,"repeats":0,"qpu_time":1000000,"counts":{"01":60,"10":40},"error":"","log":["2027-01-15T08:00:00Z queued: 100 shots on 2 qubits","2027-01-15T08:00:00Z run 1 started: 100 shots from shot 0","2027-01-15T08:00:12Z run 1: 100 of 100 shots in 1.000 s","2027-01-15T08:00:12Z completed in 1 run"],"run":null}');
INSERT INTO "tasks" VALUES(2,'id-3',1001,0,'{"id":2,"session":"id-3","uid":1001,"shots":7,"qubits":2,"key":"key-6","submitted":1800000012000000,"status":"cancelled","started":1800000012000000,"finished":1800000012000000,"shots_done":0,"runs":1,"repeats":0,"qpu_time":0,"counts":{},"error":"its session ended: released","log":["2027-01-15T08:00:12Z queued: 7 shots on 2 qubits","2027-01-15T08:00:12Z run 1 started: 7 shots from shot 0","2027-01-15T08:00:12Z cancelled: its session ended: released","2027-01-15T08:00:12Z run 1 stopped"],"run":null}');
INSERT INTO "tasks" VALUES(3,'id-1',1001,1,'{"id":3,"session":"id-1","uid":1001,"shots":200,"qubits":2,"key":"the-key","submitted":1800000012000000,"status":"running","started":1800000012000000,"finished":null,"shots_done":0,"runs":0,"repeats":0,"qpu_time":0,"counts":{},"error":"","log":["2027-01-15T08:00:12Z queued: 200 shots on 2 qubits","2027-01-15T08:00:12Z run 1 started: 200 shots from shot 0"],"run":{"token":"id-6","first_shot":0,"shots":200,"started":1800000012000000,"deadline":null}}');
INSERT INTO "tasks" VALUES(4,'id-2',1002,1,'{"id":4,"session":"id-2","uid":1002,"shots":50,"qubits":2,"key":"key-10","submitted":1800000015000000,"status":"queued","started":null,"finished":null,"shots_done":0,"runs":0,"repeats":0,"qpu_time":0,"counts":{},"error":"","log":["2027-01-15T08:00:15Z queued: 50 shots on 2 qubits"],"run":null}');
CREATE TABLE windows (record TEXT NOT NULL);
INSERT INTO "windows" VALUES('{"start":1800003615000000,"end":1800004215000000,"kind":"calibrating","reason":"calibrating"}');
INSERT INTO "windows" VALUES('{"start":1800007215000000,"end":null,"kind":"maintenance","reason":"maintenance"}');
CREATE INDEX open_sessions ON sessions (acquired) WHERE open;
CREATE INDEX sessions_by_user ON sessions (uid, acquired);
CREATE INDEX sessions_by_job ON sessions (job);
CREATE INDEX sessions_by_time ON sessions (acquired);
CREATE INDEX live_tasks ON tasks (id) WHERE live;
CREATE INDEX tasks_by_user ON tasks (uid, id);
CREATE INDEX tasks_by_session ON tasks (session, id);
COMMIT;
PRAGMA user_version = 1;
