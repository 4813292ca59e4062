"""Conversion of KITTI and COCO data sets to the TFRecords of TAO's converter."""
