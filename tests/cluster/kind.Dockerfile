# headrace's own image, and the tasks of the tests.
FROM localhost/headrace:plain
COPY app.py /app/clusterapp.py
COPY tasks.py /app/
