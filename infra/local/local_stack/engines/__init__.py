"""Other people's brokers and stores in the place of the embedded ones.

KAFKA=apache, MQTT=mosquitto and S3=versitygw choose them.
"""
