"""A small S3 server over plain files, for an edge: a bucket is a folder, and an object a file in it.

What is kept beside a file's content (its ETag, its headers) is an extended attribute of it, so one rename
puts an object there whole. `names` says which file a key is, `files` writes and reads them, `walk` lists
them, `uploads` joins parts, `signature` and `body` read requests, `app` answers them.
"""
