#!/bin/sh
# Makes the files of this folder that rcgen can't make, with OpenSSL 3.0. They are for tests only, and in the
# repository as they are: nobody needs to run this again.
set -eu
cd "$(dirname "$0")"
years=36500
ec() { openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$1" -out "$2" 2>/dev/null; }
request() { openssl req -new -key "$1" -subj "/CN=$2" -out request.csr; }

# An authority, and what it signed: without -extfile that is of version 1.
ec P-256 ca.key
openssl req -x509 -new -key ca.key -subj '/CN=an authority of old' -days $years -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE
ec P-256 v1.key
request v1.key 'of version 1'
openssl x509 -req -in request.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days $years -out v1.pem 2>/dev/null

# An authority of version 1, and what it signed.
request ca.key 'an authority of version 1'
openssl x509 -req -in request.csr -signkey ca.key -days $years -out v1-ca.pem 2>/dev/null
request v1.key 'below version 1'
echo subjectAltName=DNS:nsqd.example >extensions
openssl x509 -req -in request.csr -CA v1-ca.pem -CAkey ca.key -set_serial 2 -days $years \
    -extfile extensions -out below-v1-ca.pem 2>/dev/null

# Keys that ring does not know, with certificates.
ec P-521 p521.key
openssl genrsa -out rsa1024.key 1024 2>/dev/null
openssl genrsa -out rsa8192.key 8192 2>/dev/null
openssl genpkey -algorithm ED448 -out ed448.key
for name in p521 rsa1024 rsa8192 ed448; do
    openssl req -x509 -new -key $name.key -subj "/CN=$name" -days $years -out $name.pem
done
request v1.key 'below P-521'
openssl x509 -req -in request.csr -CA p521.pem -CAkey p521.key -set_serial 3 -days $years \
    -extfile extensions -out below-p521.pem 2>/dev/null

# One key in many forms.
openssl genrsa -out rsa.key 2048 2>/dev/null
openssl req -x509 -new -key rsa.key -subj /CN=rsa -days $years -out rsa.pem
openssl rsa -in rsa.key -traditional -out rsa-pkcs1.key 2>/dev/null
openssl rsa -in rsa.key -traditional -aes128 -passout pass:secret -out rsa-encrypted-pkcs1.key 2>/dev/null
openssl pkcs8 -topk8 -in rsa.key -passout pass:secret -out rsa-encrypted.key
openssl ecparam -name prime256v1 -genkey -out sec1.key
openssl req -x509 -new -key sec1.key -subj /CN=sec1 -days $years -out sec1.pem
rm request.csr extensions
